"""Which layers of a model have a window, as newer configs say it: by a name for each layer."""

from __future__ import annotations

from collections.abc import Sequence

from quire.errors import UnsupportedModelError
from quire.models.hf_config import HFConfig

FULL, SLIDING = "full_attention", "sliding_attention"


def layer_types(hf: HFConfig, default: Sequence[str]) -> list[str]:
    """FULL or SLIDING for each layer; ``default``, perhaps too long, is the family's own."""
    num_layers = hf.int("num_hidden_layers")
    kinds = hf.optional_list("layer_types")
    if kinds is None:
        return list(default[:num_layers])
    unknown = sorted({str(kind) for kind in kinds if kind not in (FULL, SLIDING)})
    if unknown or len(kinds) != num_layers:
        raise UnsupportedModelError(
            f"config key 'layer_types' of {hf.architecture} must name {FULL} or {SLIDING} for each "
            f"of the {num_layers} layers; it has {len(kinds)} entries"
            + (f", among them {unknown}" if unknown else "")
        )
    return kinds


def every_nth_full(num_layers: int, n: int) -> list[str]:
    """Windows in all layers but every ``n``-th."""
    return [SLIDING if (index + 1) % n else FULL for index in range(num_layers)]
