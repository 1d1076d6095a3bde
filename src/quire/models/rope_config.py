"""The rotary embedding that a config.json describes: types, their parameters, and two spellings.

Files older than transformers 5 hold ``rope_theta`` and ``rope_scaling``, newer ones
``rope_parameters``. Knows no architecture. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from quire.errors import UnsupportedModelError
from quire.models.config_values import is_a, is_above, is_at_least, is_list_of, shown

TRAINED_LENGTH = "original_max_position_embeddings"
ATTN_FACTOR = "attn_factor"
SHARE = "partial_rotary_factor"

# Per type of rotary scaling: parameters that it must have, and that it may have.
_PARAMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor",), (TRAINED_LENGTH,)),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor", TRAINED_LENGTH), ()),
    "yarn": (
        ("factor",),
        (
            TRAINED_LENGTH,
            "attention_factor",
            ATTN_FACTOR,  # multiplies the factor of cos and sin; transformers ignores it
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        ),
    ),
    "longrope": (
        ("short_factor", "long_factor"),
        (
            TRAINED_LENGTH,
            "factor",
            "attention_factor",
            "short_mscale",  # PhiMoE's attention factors; other families' code knows none
            "long_mscale",
        ),
    ),
}
# Per type, other parameters that are accepted with values that change nothing. Other engines
# multiply by extrapolation_factor, transformers does not.
_INERT: dict[str, dict[str, tuple[Any, ...]]] = {
    "yarn": {"finetuned": (True, False), "extrapolation_factor": (1,)}
}
_Values: TypeAlias = tuple[str, Callable[[Any], bool]]
_POSITIVE: _Values = ("a number above 0", is_above(0))
_NOT_NEGATIVE: _Values = ("a number of at least 0", is_at_least(0))
_POSITIVE_LIST: _Values = ("a list of numbers above 0", is_list_of(is_above(0)))
# Which values a parameter may have, in any type.
_VALUES: dict[str, _Values] = {
    "factor": _POSITIVE,
    TRAINED_LENGTH: ("a number of at least 2", is_at_least(2)),
    "attention_factor": _POSITIVE,
    ATTN_FACTOR: _POSITIVE,
    "beta_fast": _POSITIVE,
    "beta_slow": _POSITIVE,
    "high_freq_factor": _POSITIVE,
    "long_factor": _POSITIVE_LIST,
    "long_mscale": _POSITIVE,
    "low_freq_factor": _POSITIVE,
    "mscale": _NOT_NEGATIVE,
    "mscale_all_dim": _NOT_NEGATIVE,
    "short_factor": _POSITIVE_LIST,
    "short_mscale": _POSITIVE,
    "truncate": ("true or false", is_a(bool)),
}
_ALIASES = {"su": "longrope"}  # the first Phi-3 files


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeConfig:
    """Rotary embedding as the config describes it, from either spelling."""

    theta: float
    type: str  # a key of the table above
    params: Mapping[str, Any]  # of that type: factor, original_max_position_embeddings, ...
    partial: float = 1.0  # share of the head size that is rotated
    partial_key: str = field(default=SHARE, compare=False)  # where the config says so


def join_rope_spellings(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping of ``rope_parameters`` and ``rope_scaling``.

    Both are set only by an override, in the older spelling; where that names a type, it replaces
    all but the base and the rotated share.
    """
    if names_rope_type(old):
        new = beside_scaling(new)
    return {key: value for key, value in {**new, **old}.items() if value is not None}


def beside_scaling(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that any type may have (base and rotated share); older files have them as
    keys beside ``rope_scaling``."""
    return {key: params[key] for key in ("rope_theta", SHARE) if key in params}


def names_rope_type(scaling: Mapping[str, Any]) -> bool:
    return scaling.keys() & {"type", "rope_type"} != set()


def take_rope_type(params: dict[str, Any], architecture: str) -> str:
    """Remove the type, under either of its two names, from ``params`` and return it."""
    said = [params.pop(key) for key in ("rope_type", "type") if key in params]
    names = [_ALIASES.get(str(name), str(name)) for name in said] or ["default"]
    if len(set(names)) > 1:
        raise UnsupportedModelError(
            f"config key 'rope_scaling' has rope_type {names[0]!r} and type {names[1]!r}, "
            "which mean the same and differ; set both, or drop one with --hf-overrides"
        )
    if names[0] not in _PARAMS:
        raise UnsupportedModelError(
            f"config key 'rope_scaling' has type {names[0]!r}, which is not supported for "
            f"{architecture}; supported: {', '.join(_PARAMS)}"
        )
    return names[0]


def uses_trained_length(kind: str) -> bool:
    return any(TRAINED_LENGTH in keys for keys in _PARAMS[kind])


def check_rope_params(
    kind: str, params: Mapping[str, Any], trained_length: int | None
) -> dict[str, Any]:
    """``params`` checked for the type ``kind``, without inert ones; ``trained_length`` is the
    config's top-level original_max_position_embeddings, if any."""
    params = _without_inert(kind, params)
    required, optional = _PARAMS[kind]
    known = required + optional
    if trained_length is not None:
        if params.get(TRAINED_LENGTH, trained_length) != trained_length:
            raise UnsupportedModelError(
                f"config keys {TRAINED_LENGTH!r} = {trained_length} and "
                f"'rope_scaling.{TRAINED_LENGTH}' = {shown(params[TRAINED_LENGTH])} mean the same "
                "and differ; drop one with --hf-overrides"
            )
        params = {**params, TRAINED_LENGTH: trained_length}
    missing = [key for key in required if key not in params]
    unknown = [key for key in params if key not in known]
    for word, keys in (("lacks", missing), ("has unknown", unknown)):
        if keys:
            raise UnsupportedModelError(
                f"config key 'rope_scaling' of type {kind!r} {word} {', '.join(keys)}; "
                f"it takes {', '.join(known) or 'no parameters'}"
            )
    for key, value in params.items():
        check_rope_value(key, value)
    if params.keys() >= {"attention_factor", ATTN_FACTOR}:
        raise UnsupportedModelError(
            f"config keys 'rope_scaling.attention_factor' = {params['attention_factor']} and "
            f"'rope_scaling.attn_factor' = {params[ATTN_FACTOR]} both set the factor of cos and "
            "sin; drop one with --hf-overrides"
        )
    if kind == "llama3" and params["high_freq_factor"] <= params["low_freq_factor"]:
        raise UnsupportedModelError(
            f"config key 'rope_scaling.high_freq_factor' = {params['high_freq_factor']} must be "
            f"above 'rope_scaling.low_freq_factor' = {params['low_freq_factor']}"
        )
    return dict(params)


def check_rope_value(key: str, value: Any) -> None:
    """Refuse a value that a parameter cannot have."""
    wanted, is_allowed = _VALUES[key]
    if not is_allowed(value):
        raise UnsupportedModelError(
            f"config key 'rope_scaling.{key}' = {shown(value)} must be {wanted}"
        )


def _without_inert(kind: str, params: Mapping[str, Any]) -> dict[str, Any]:
    inert = _INERT.get(kind, {})
    for key in inert.keys() & params.keys():
        if params[key] not in inert[key]:
            raise UnsupportedModelError(
                f"config key 'rope_scaling.{key}' = {shown(params[key])} of type {kind!r} must be "
                f"{' or '.join(map(str, inert[key]))}, which changes nothing; --hf-overrides "
                f'\'{{"rope_scaling": {{"{key}": null}}}}\' drops it, as transformers does'
            )
    is_neutral = params.get(ATTN_FACTOR) == 1
    return {
        key: value
        for key, value in params.items()
        if key not in inert and not (is_neutral and key == ATTN_FACTOR)
    }
