"""The rotary embedding that a config.json describes: types, their parameters, and two spellings.

Files older than transformers 5 hold ``rope_theta`` and ``rope_scaling``, newer ones
``rope_parameters``. Knows no architecture. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from quire.errors import UnsupportedModelError
from quire.models.config_values import is_a, is_above, is_at_least, is_list_of
from quire.shown import shown

TRAINED_LENGTH = "original_max_position_embeddings"
ATTN_FACTOR = "attn_factor"
SHARE = "partial_rotary_factor"

# Per type of rotary scaling: parameters that it must have, and that it may have.
_PARAMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor",), (TRAINED_LENGTH,)),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor"), (TRAINED_LENGTH,)),
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
# What type "default" has no use for: transformers ignores it. Sections share a head among the
# positions of images and text, which are one and the same for text alone.
_UNUSED_BY_DEFAULT = {*_VALUES, "mrope_section"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeConfig:
    """Rotary embedding as the config describes it, from either spelling."""

    theta: float
    type: str  # a key of the table above
    params: Mapping[str, Any]  # of that type: factor, original_max_position_embeddings, ...
    partial: float = 1.0  # share of the head size that is rotated
    partial_key: str = field(default=SHARE, compare=False)  # where the config says so
    key: str = field(default="rope_scaling", compare=False)  # where the config has type and params


def join_rope_spellings(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping of ``rope_parameters`` and ``rope_scaling``.

    Both are set only by an override, in the older spelling; where that names a type, it replaces
    all but the base and the rotated share. Nulls count as absent, but for a flag that is on when
    absent: transformers takes its null for false, and `check_rope_params` refuses it.
    """
    if names_rope_type(old):
        new = beside_scaling(new)
    joined = {**new, **old}
    return {key: joined[key] for key in joined if joined[key] is not None or key == "truncate"}


def key_of_scaling(old: Mapping[str, Any]) -> str:
    """The key that errors name: that of the older spelling ``old`` where it is used."""
    return "rope_scaling" if old else "rope_parameters"


def beside_scaling(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that any type may have (base and rotated share); older files have them as
    keys beside ``rope_scaling``."""
    return {key: params[key] for key in ("rope_theta", SHARE) if key in params}


def names_rope_type(scaling: Mapping[str, Any]) -> bool:
    return scaling.keys() & {"type", "rope_type"} != set()


def take_rope_type(params: dict[str, Any], key: str, architecture: str) -> str:
    """Remove the type, under either of its two names, from ``params`` and return it; ``key`` is
    where the config has them."""
    said = [params.pop(name) for name in ("rope_type", "type") if name in params]
    names = [_ALIASES.get(str(name), str(name)) for name in said] or ["default"]
    if len(set(names)) > 1:
        raise UnsupportedModelError(
            f"config key {key!r} has rope_type {names[0]!r} and type {names[1]!r}, "
            "which mean the same and differ; set both, or drop one with --hf-overrides"
        )
    lost = [param for param in params if param in _VALUES]
    if lost and not said:
        raise UnsupportedModelError(
            f"config key {key!r} has {', '.join(lost)} but no rope_type, which is one of "
            f"{', '.join(_PARAMS)}; {_without_scaling(key)}"
        )
    if names[0] not in _PARAMS:
        raise UnsupportedModelError(
            f"config key {key!r} has type {names[0]!r}, which is not supported for "
            f"{architecture}; supported: {', '.join(_PARAMS)}; {_without_scaling(key)}"
        )
    return names[0]


def uses_trained_length(kind: str) -> bool:
    return any(TRAINED_LENGTH in keys for keys in _PARAMS[kind])


def check_rope_params(
    kind: str,
    params: Mapping[str, Any],
    *,
    key: str,
    trained_length: int | None,
    longest: int | None,
) -> dict[str, Any]:
    """``params``, which stand under ``key``, checked for the type ``kind`` and without inert ones.

    ``trained_length`` is the config's top-level original_max_position_embeddings, if any, and
    ``longest`` its max_position_embeddings; their ratio is yarn's factor if none is said.
    """
    params = _without_inert(kind, params, key)
    where = TRAINED_LENGTH if trained_length is not None else f"{key}.{TRAINED_LENGTH}"
    if trained_length is not None:
        if params.get(TRAINED_LENGTH, trained_length) != trained_length:
            raise UnsupportedModelError(
                f"config keys {TRAINED_LENGTH!r} = {trained_length} and "
                f"'{key}.{TRAINED_LENGTH}' = {shown(params[TRAINED_LENGTH])} mean the same "
                "and differ; drop one with --hf-overrides"
            )
        params[TRAINED_LENGTH] = trained_length
    for name in params:
        if name in _VALUES:
            check_rope_value(name, params[name], key)
    if needs_factor(kind, params) and TRAINED_LENGTH in params and longest is not None:
        params["factor"] = _ratio(longest, params[TRAINED_LENGTH], where, key)
    _check_names(kind, params, key)
    if params.keys() >= {"attention_factor", ATTN_FACTOR}:
        raise UnsupportedModelError(
            f"config keys '{key}.attention_factor' = {params['attention_factor']} and "
            f"'{key}.attn_factor' = {params[ATTN_FACTOR]} both set the factor of cos and "
            "sin; drop one with --hf-overrides"
        )
    if kind == "llama3" and params["high_freq_factor"] <= params["low_freq_factor"]:
        raise UnsupportedModelError(
            f"config key '{key}.high_freq_factor' = {params['high_freq_factor']} must be "
            f"above '{key}.low_freq_factor' = {params['low_freq_factor']}"
        )
    return params


def needs_factor(kind: str, params: Mapping[str, Any]) -> bool:
    """Whether a factor is derived, as transformers does where it is null."""
    return kind == "yarn" and "factor" not in params


def _ratio(longest: int, trained: float, where: str, key: str) -> float:
    """The factor from ``trained``, which stands at ``where``, to the ``longest`` length."""
    if longest < trained:
        raise UnsupportedModelError(
            f"config keys 'max_position_embeddings' = {longest} and {where!r} = {trained} give "
            f"'{key}.factor' = {longest / trained:g}, which must be at least 1; correct them, or "
            f"{_without_scaling(key)}"
        )
    return longest / trained


def check_rope_value(name: str, value: Any, key: str) -> None:
    """Refuse a value that a parameter, which stands under ``key``, cannot have."""
    wanted, is_allowed = _VALUES[name]
    if not is_allowed(value):
        raise UnsupportedModelError(f"config key '{key}.{name}' = {shown(value)} must be {wanted}")


def _without_inert(kind: str, params: Mapping[str, Any], key: str) -> dict[str, Any]:
    if kind == "default":
        return {name: params[name] for name in params if name not in _UNUSED_BY_DEFAULT}
    inert = _INERT.get(kind, {})
    for name in inert.keys() & params.keys():
        if params[name] not in inert[name]:
            raise UnsupportedModelError(
                f"config key '{key}.{name}' = {shown(params[name])} of type {kind!r} must be "
                f"{' or '.join(map(str, inert[name]))}, which changes nothing; "
                f"{_overriding(f'{key}.{name}', None)} drops it, as transformers does"
            )
    is_neutral = params.get(ATTN_FACTOR) == 1
    return {
        name: value
        for name, value in params.items()
        if name not in inert and not (is_neutral and name == ATTN_FACTOR)
    }


def _check_names(kind: str, params: Mapping[str, Any], key: str) -> None:
    required, optional = _PARAMS[kind]
    known = required + optional
    missing = [name for name in required if name not in params]
    unknown = [name for name in params if name not in known]
    for word, names in (("lacks", missing), ("has unknown", unknown)):
        if names:
            raise UnsupportedModelError(
                f"config key {key!r} of type {kind!r} {word} {', '.join(names)}; it takes "
                f"{', '.join(known) or 'no parameters'}; {_without_scaling(key)}"
            )


def _without_scaling(key: str) -> str:
    """How to run without the scaling that stands under ``key``."""
    plain = None if key.endswith("rope_scaling") else {"rope_type": "default"}
    return f"{_overriding(key, plain)} leaves rotary positions unscaled"


def _overriding(path: str, value: object) -> str:
    for part in reversed(path.split(".")):
        value = {part: value}
    return f"--hf-overrides '{json.dumps(value)}'"
