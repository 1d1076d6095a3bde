"""How long a context may be: what the model's config says, and what the user may ask for.

Knows the config keys that hold a length. Imports no torch.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from quire import env
from quire.errors import UnsupportedModelError
from quire.models.config_values import is_at_least
from quire.models.rope_config import (
    TRAINED_LENGTH,
    check_rope_value,
    join_rope_spellings,
    key_of_scaling,
)
from quire.shown import shown

logger = logging.getLogger(__name__)

_LENGTH_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
    "model_max_length",
    "n_ctx",
)
DEFAULT_LENGTH = 2048
# Tokenizers write about 1e30 for "no limit".
_NO_LIMIT = 10**9
# Scalings whose max_position_embeddings is the length after scaling already.
_SCALED_ALREADY = frozenset({"default", "llama3", "longrope", "su", "mrope"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextLength:
    """The longest context and who chose it; only a length the user gave is never reduced to fit."""

    longest: int
    source: Literal["user", "config", "auto"]


def resolve_context_length(
    wanted: int | str | None,
    *,
    config: dict[str, Any],
    tokenizer_config: dict[str, Any],
    num_learned_positions: int | None,
) -> ContextLength:
    """``wanted`` is a number, "auto" (what fits) or None (what the config says, if it fits)."""
    derived, key = derived_length(config, tokenizer_config)
    if wanted is None or wanted == "auto":
        return ContextLength(longest=derived, source="auto" if wanted == "auto" else "config")
    assert isinstance(wanted, int)
    if wanted < 1:
        raise ValueError(
            f"max_model_len={wanted} is not a length; give a number of tokens of at least 1, "
            "or 'auto' for what fits in memory"
        )
    if num_learned_positions is not None and wanted > num_learned_positions:
        raise ValueError(
            f"max_model_len={wanted} is more than the {num_learned_positions} positions that the "
            f"model has learned; use max_model_len={num_learned_positions} or less"
        )
    limit = _limit(derived, config)
    if wanted > limit and not env.ALLOW_LONG_MAX_MODEL_LEN.get():
        name = env.ALLOW_LONG_MAX_MODEL_LEN.names[0]
        raise ValueError(
            f"max_model_len={wanted} is larger than the model's own limit of {limit} "
            f"({key}); use {limit} or less, or set {name}=1 if the model is known to work "
            "beyond it (positions it was not trained for give wrong text)"
        )
    return ContextLength(longest=wanted, source="user")


def derived_length(config: dict[str, Any], tokenizer_config: dict[str, Any]) -> tuple[int, str]:
    """The length that the model was made for, and the name of the key that says so."""
    found = _lengths(config, _LENGTH_KEYS)
    if found:
        key = min(found, key=lambda name: found[name])
        length, reason = _scaled(found[key], config)
        return length, f"{key} in config.json{reason}"
    limit = _lengths(tokenizer_config, ("model_max_length",)).get("model_max_length")
    if limit is not None:
        return limit, "model_max_length in tokenizer_config.json"
    logger.warning(
        "config.json gives no context length (none of %s); max_model_len is %d, raise it if the "
        "model supports more",
        ", ".join(_LENGTH_KEYS),
        DEFAULT_LENGTH,
    )
    return DEFAULT_LENGTH, "the default, as config.json gives none"


def _limit(derived: int, config: dict[str, Any]) -> int:
    """The largest ``max_model_len`` a user may set; some models support more than their default.

    The rotation of dynamic scalings is fixed by the longest length, and is the trained one only up
    to ``derived``. Command-R's makers name a length that its positions also serve.
    """
    kind, factor = _scaling(config)
    if kind == "dynamic":
        return int(derived * factor)
    keys: Collection[str] = ("model_max_length",)
    if config.get("use_dynamic_ntk"):  # Qwen-1, whose seq_length is the trained length
        keys = _LENGTH_KEYS
    return max([derived, *_lengths(config, keys).values()])


def _lengths(config: dict[str, Any], keys: Collection[str]) -> dict[str, int]:
    """Key -> length; keys that are absent, null or mean "no limit" are left out."""
    said = {key: config[key] for key in keys if config.get(key) is not None}
    for key, value in said.items():
        if not is_at_least(1)(value) and value != math.inf:
            raise UnsupportedModelError(
                f"config key {key!r} = {shown(value)} must be a number of tokens of at least 1; "
                f"set it with --hf-overrides '{{\"{key}\": 4096}}'"
            )
    return {key: int(value) for key, value in said.items() if value < _NO_LIMIT}


def _scaled(length: int, config: dict[str, Any]) -> tuple[int, str]:
    kind, factor = _scaling(config)
    if kind in _SCALED_ALREADY or kind == "dynamic" or _is_gemma3(config):
        return length, ""
    if kind == "yarn":
        # Trained length times factor; some configs hold the product in max_position_embeddings.
        beside = _lengths(config, [TRAINED_LENGTH]).get(TRAINED_LENGTH)
        length = int(_rope(config).get(TRAINED_LENGTH) or beside or length)
    return int(length * factor), f" with {kind} scaling by {factor:g}"


def _is_gemma3(config: dict[str, Any]) -> bool:
    """Whether it is Gemma 3, whose max_position_embeddings is the length after any scaling."""
    is_named = str(config.get("model_type")).startswith("gemma3")
    return is_named or config.get("rope_local_base_freq") is not None


def _scaling(config: dict[str, Any]) -> tuple[str, float]:
    """The type of rotary scaling, and its factor."""
    rope, key = _rope(config), key_of_scaling(config.get("rope_scaling") or {})
    kind = rope.get("rope_type") or rope.get("type") or "default"
    by_layer_type = {f"{key}.{name}": part for name, part in rope.items()}
    for where, part in {key: rope, **by_layer_type}.items():
        if isinstance(part, dict) and part.get("factor") is not None:
            check_rope_value("factor", part["factor"], where)
    return (kind, float(rope["factor"])) if "factor" in rope else ("default", 1.0)


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    return join_rope_spellings(
        config.get("rope_parameters") or {}, config.get("rope_scaling") or {}
    )
