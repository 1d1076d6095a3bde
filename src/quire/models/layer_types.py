"""Per-layer settings of configs, mainly sliding windows: by a name for each layer, or by the
family's own pattern."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quire.errors import UnsupportedModelError
from quire.models.hf_config import HFConfig

FULL, SLIDING = "full_attention", "sliding_attention"


def windows_by_layer(hf: HFConfig, window: int | None, default: Sequence[str]) -> list[int | None]:
    """Each layer's window: ``window`` or None; ``default`` is that of `layer_types`."""
    return [window if kind == SLIDING else None for kind in layer_types(hf, default)]


def switched_window(hf: HFConfig, *, absent: int | None = 4096) -> int | None:
    """The window if ``use_sliding_window`` is on (default: off), else None; ``absent`` is the size
    if the config gives none."""
    key = "sliding_window"
    window = hf.optional_int(key) if absent is None else hf.nullable_int(key, absent=absent)
    return window if hf.bool("use_sliding_window", False) else None


def upper_windows(hf: HFConfig) -> list[int | None]:
    """Each layer's window: `switched_window` from layer ``max_window_layers`` on (Qwen)."""
    first, num_layers = hf.int("max_window_layers", 28), hf.int("num_hidden_layers")
    kinds = [SLIDING if layer >= first else FULL for layer in range(num_layers)]
    return windows_by_layer(hf, switched_window(hf), kinds)


def layer_types(hf: HFConfig, default: Sequence[str]) -> list[str]:
    """FULL or SLIDING for each layer; ``default``, cut to size, if the config does not say."""
    kinds = list_by_layer(hf, "layer_types")
    if kinds is None:
        return list(default[: hf.int("num_hidden_layers")])
    unknown = sorted({str(kind) for kind in kinds if kind not in (FULL, SLIDING)})
    if unknown:
        raise UnsupportedModelError(
            f"config key 'layer_types' of {hf.architecture} must name {FULL} or {SLIDING} for each "
            f"layer; among its entries are {unknown}"
        )
    return kinds


def list_by_layer(hf: HFConfig, key: str) -> list[Any] | None:
    """The list under ``key``, checked to have an entry per layer; None if absent."""
    found, num_layers = hf.optional_list(key), hf.int("num_hidden_layers")
    if found is not None and len(found) != num_layers:
        raise UnsupportedModelError(
            f"config key {key!r} of {hf.architecture} has {len(found)} entries and "
            f"num_hidden_layers is {num_layers}; they must agree"
        )
    return found


def every_nth_full(num_layers: int, n: int) -> list[str]:
    """Layer types with full attention in every ``n``-th layer and windows in the others."""
    return [SLIDING if (index + 1) % n else FULL for index in range(num_layers)]
