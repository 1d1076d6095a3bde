"""Applies a user's changes to a model's config.json (``hf_overrides``). Knows no architecture.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from quire.models.rope_config import TRAINED_LENGTH, beside_scaling, names_rope_type
from quire.shown import shown


def apply_overrides(
    data: Mapping[str, Any], overrides: Mapping[str, Any] | Callable[[Any], Any] | None
) -> dict[str, Any]:
    """`data` with the user's overrides: a mapping is merged in, and null empties a key. Rotary
    scaling that names its type replaces the old one: the parameters of two types do not mix.

    A function gets a copy whose keys are also attributes; it may change it in place or return
    another mapping.
    """
    result = deepcopy(dict(data))
    if overrides is None:
        return result
    if isinstance(overrides, Mapping):
        return _settled(data, _merged(result, overrides))
    if not callable(overrides):
        raise ValueError(
            f"hf_overrides is {shown(overrides)}; expected a dictionary of config keys, such as "
            '{"rope_theta": 1000000}, or a function of the config'
        )
    config = _AttributeDict(result)
    changed = overrides(config)
    if changed is None:
        return _settled(data, dict(config))
    if not isinstance(changed, Mapping):
        raise ValueError(
            f"the hf_overrides function returned {shown(changed)}; expected the config it was "
            "given, or a dictionary"
        )
    return _settled(data, dict(changed))


class _AttributeDict(dict[str, Any]):
    """The config as an override function sees it: keys are attributes too, as in transformers."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the config has no key {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def _merged(
    data: dict[str, Any], overrides: Mapping[str, Any], in_rope: bool = False
) -> dict[str, Any]:
    for key, value in overrides.items():
        is_rope = in_rope or key in ("rope_scaling", "rope_parameters")
        is_inner = isinstance(value, Mapping) and isinstance(data.get(key), dict)
        if value is None:
            data[key] = None  # not removed: an absent key may mean something else
        elif is_inner and is_rope and names_rope_type(value):
            data[key] = deepcopy({**beside_scaling(data[key]), **value})
        elif is_inner:
            data[key] = _merged(data[key], value, is_rope)
        else:
            data[key] = deepcopy(value)
    return data


def _settled(before: Mapping[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """``after`` without contradictions between the older and newer spelling of rotary embeddings:
    what an override sets in one replaces what the file says in the other."""

    def is_new(key: str) -> bool:
        return after.get(key) is not None and after.get(key) != before.get(key)

    params, scaling = after.get("rope_parameters"), after.get("rope_scaling")
    changed = [after[key] for key in ("rope_parameters", "rope_scaling") if is_new(key)]
    says_length = any(TRAINED_LENGTH in one for one in changed if isinstance(one, Mapping))
    if says_length and TRAINED_LENGTH in after and not is_new(TRAINED_LENGTH):
        after = {**after, TRAINED_LENGTH: None}
    if not isinstance(params, Mapping):
        return after
    beside = beside_scaling(params)
    if not is_new("rope_parameters"):
        said = {key for key in beside if is_new(key)}
        kept = {key: value for key, value in params.items() if key not in said}
        return {**after, "rope_parameters": kept}
    if isinstance(scaling, Mapping) and not is_new("rope_scaling"):
        is_by_layer = any(isinstance(value, Mapping) for value in params.values())
        parts = params if is_by_layer or names_rope_type(params) else {**scaling, **params}
        after = {**after, "rope_parameters": dict(parts), "rope_scaling": None}
    gone = {key: None for key in beside if key in after and not is_new(key)}
    return {**after, **gone}
