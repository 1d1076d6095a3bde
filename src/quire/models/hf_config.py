"""HFConfig: a model's config.json, read strictly. Knows nothing about any architecture.

Every key is read by type and noted; a key that nobody read and that is not known to be inert is
refused by name, so that a checkpoint with a new behaviour cannot load silently wrong. Imports no
torch.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from math import isfinite
from typing import Any, TypeVar

from quire.errors import UnsupportedModelError
from quire.models.inert_keys import INERT_KEYS, ON_UNLESS_SAID

T = TypeVar("T")
Keys = str | tuple[str, ...]  # a key, or its spellings


class _Required(Enum):
    REQUIRED = "required"


REQUIRED = _Required.REQUIRED

# Per type of rotary scaling: parameters that it must have, and that it may have.
_ROPE_PARAMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor",), ("original_max_position_embeddings",)),
    "llama3": (
        ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
        (),
    ),
    "yarn": (
        ("factor",),
        (
            "original_max_position_embeddings",
            "attention_factor",
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
            "original_max_position_embeddings",
            "factor",
            "attention_factor",
            "short_mscale",  # PhiMoE's name for the attention factor
            "long_mscale",
        ),
    ),
}
_ROPE_ALIASES = {"su": "longrope"}  # the first Phi-3 files


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeConfig:
    """Rotary embedding as the config describes it, whatever the age of its spelling."""

    theta: float
    type: str  # a key of the table above
    params: Mapping[str, Any]  # of that type: factor, original_max_position_embeddings, ...
    partial: float = 1.0  # share of the head size that is rotated


class HFConfig:
    """Typed reads of one config. A JSON null counts as an absent key, but for `nullable_int`."""

    def __init__(
        self,
        data: Mapping[str, Any],
        architecture: str,
        path: str = "",
        spellings: Mapping[str, Keys] | None = None,
    ) -> None:
        self._data = data
        self._path = path  # of a nested config, with its dot
        self._spellings = {key: _as_tuple(own) for key, own in (spellings or {}).items()}
        self._read: set[str] = set()
        self._rope_types_read: set[str] = set()  # keys of rope_parameters that are layer types
        self._children: dict[str, HFConfig] = {}
        self.architecture = architecture

    def with_spellings(self, **spellings: Keys) -> HFConfig:
        """The same for readers that ask for the usual keys, which a family spells its own way."""
        return HFConfig(self._data, self.architecture, self._path, spellings)

    def int(self, key: Keys, default: builtins.int | _Required = REQUIRED) -> builtins.int:
        return self._typed(key, "a whole number", _is_int, default)

    def float(self, key: Keys, default: builtins.float | _Required = REQUIRED) -> builtins.float:
        return float(self._typed(key, "a number", _is_number, default))

    def bool(self, key: Keys, default: builtins.bool | _Required = REQUIRED) -> builtins.bool:
        return self._typed(key, "true or false", _is(bool), default)

    def str(self, key: Keys, default: builtins.str | _Required = REQUIRED) -> builtins.str:
        return self._typed(key, "a string", _is(str), default)

    def list(
        self, key: Keys, default: builtins.list[Any] | _Required = REQUIRED
    ) -> builtins.list[Any]:
        return self._typed(key, "a list", _is(list), default)

    def optional_int(self, key: Keys) -> builtins.int | None:
        return self._typed(key, "a whole number or null", _is_int, None)

    def nullable_int(self, key: builtins.str, *, absent: builtins.int) -> builtins.int | None:
        """As `optional_int`, where a family gives a meaning to silence that null does not have."""
        return self.optional_int(key) if key in self._data else self.int(key, absent)

    def optional_float(self, key: Keys) -> builtins.float | None:
        value = self._typed(key, "a number or null", _is_number, None)
        return None if value is None else float(value)

    def nullable_float(self, key: builtins.str, *, absent: builtins.float) -> builtins.float | None:
        """As `nullable_int`."""
        return self.optional_float(key) if key in self._data else absent

    def optional_list(self, key: Keys) -> builtins.list[Any] | None:
        return self._typed(key, "a list or null", _is(list), None)

    def choice(
        self,
        key: Keys,
        options: Mapping[builtins.str, T],
        default: builtins.str | _Required = REQUIRED,
    ) -> T:
        """What `options` holds under the value; a value it does not hold is an error."""
        value = self.str(key, default)
        if value not in options:
            raise UnsupportedModelError(
                f"config key {self._spelling(key)!r} = {value!r} is not supported for "
                f"{self.architecture}; supported: {', '.join(options)}"
            )
        return options[value]

    def fixed(self, key: Keys, value: Any) -> None:
        """Refuse any other value than the one that the family always has."""
        name, found = self._find(key)
        if found is not None and found != value:
            raise UnsupportedModelError(
                f"config key {self._path + name!r} = {_short(found)} is not supported for "
                f"{self.architecture}, which has {value!r}"
            )

    def nested(self, key: builtins.str) -> HFConfig:
        """The config under `key`, empty if there is none; its keys are accounted for too."""
        if key not in self._children:
            data = self._typed(key, "an object", _is(dict), {})
            self._children[key] = HFConfig(data, self.architecture, f"{self._path}{key}.")
        return self._children[key]

    def rope(
        self,
        *,
        theta_keys: Keys = ("rope_theta",),
        theta: builtins.float = 10000.0,
        partial_keys: tuple[builtins.str, ...] = (),
        partial: builtins.float = 1.0,
        layer_type: builtins.str | None = None,
        is_scaled: builtins.bool = True,
    ) -> RopeConfig:
        """The rotary embedding, from `rope_parameters` (new files) or `rope_theta`, `rope_scaling`.

        The defaults hold where the config is silent. A family that rotates part of a head names
        its `partial_keys`; for another such a key is an error. Where `rope_parameters` differ by
        layer type, `layer_type` picks; older files have one `rope_scaling`, which is for the types
        that it `is_scaled` for.
        """
        params = self._rope_params(layer_type, is_scaled)
        kind = self._rope_type(params)
        if kind not in _ROPE_PARAMS:
            raise UnsupportedModelError(
                f"config key 'rope_scaling' has type {kind!r}, which is not supported for "
                f"{self.architecture}; supported: {', '.join(_ROPE_PARAMS)}"
            )
        nested = HFConfig(params, self.architecture, f"{self._path}rope_parameters.")
        theta = self._also_in(nested, theta_keys, "rope_theta", theta)
        share_key = "partial_rotary_factor"
        rotated = self._also_in(nested, partial_keys or (share_key,), share_key, partial)
        if not partial_keys and rotated != partial:
            raise UnsupportedModelError(
                f"config key 'partial_rotary_factor' = {rotated} is not supported for "
                f"{self.architecture}, which rotates whole heads"
            )
        own = {key: value for key, value in params.items() if key not in nested._read}
        return RopeConfig(
            theta=theta,
            type=kind,
            params=self._checked_rope_params(kind, own),
            partial=rotated,
        )

    def check_unread(self, inert: Collection[builtins.str] = ()) -> None:
        """Refuse keys that were not read, are not inert and hold something."""
        unread = self._unread(INERT_KEYS.union(inert))
        if not unread:
            return
        keys = ", ".join(f"{key!r} = {_short(value)}" for key, value in unread.items())
        plural = len(unread) > 1
        remedy = json.dumps(_nest(dict.fromkeys(unread)))
        raise UnsupportedModelError(
            f"config {'keys' if plural else 'key'} {keys} {'change' if plural else 'changes'} "
            f"behaviour that {self.architecture} in Quire does not implement; drop "
            f"{'them' if plural else 'it'} with --hf-overrides '{remedy}' if "
            f"{'they have' if plural else 'it has'} no effect"
        )

    def _typed(
        self, key: Keys, wanted: builtins.str, is_type: Callable[[Any], builtins.bool], default: Any
    ) -> Any:
        name, value = self._find(key)
        if value is None:
            if default is REQUIRED:
                raise UnsupportedModelError(
                    f"config key {self._spelling(key)!r} is missing; {self.architecture} needs it"
                )
            return default
        if not is_type(value):
            raise UnsupportedModelError(
                f"config key {self._path + name!r} = {_short(value)} must be {wanted}"
            )
        return value

    def _find(self, key: Keys) -> tuple[builtins.str, Any]:
        """The spelling in use and its value (None: absent); notes all spellings as read."""
        keys = self._all_spellings(key)
        self._read.update(keys)
        present = {name: self._data[name] for name in keys if self._data.get(name) is not None}
        if not present:
            return keys[0], None
        name, value = next(iter(present.items()))
        for other, its_value in present.items():
            if its_value != value:
                raise UnsupportedModelError(
                    f"config keys {self._path + name!r} = {_short(value)} and "
                    f"{self._path + other!r} = {_short(its_value)} mean the same and differ; "
                    f"drop one with --hf-overrides"
                )
        return name, value

    def _spelling(self, key: Keys) -> builtins.str:
        return self._path + self._all_spellings(key)[0]

    def _all_spellings(self, key: Keys) -> tuple[builtins.str, ...]:
        """The family's own before the usual ones."""
        return tuple(
            spelling
            for usual in _as_tuple(key)
            for spelling in (*self._spellings.get(usual, ()), usual)
        )

    def _unread(self, inert: Collection[builtins.str]) -> dict[builtins.str, Any]:
        """Path of each key that nobody accounts for -> its value."""
        unread = {
            self._path + key: value
            for key, value in self._data.items()
            if key not in self._read
            and not _says_nothing(key, value)
            and not _matches(key, inert)
            and not _matches(self._path + key, inert)
        }
        if self._rope_types_read:
            unread |= {
                f"{self._path}rope_parameters.{key}": value
                for key, value in self._data["rope_parameters"].items()
                if key not in self._rope_types_read and value
            }
        for child in self._children.values():
            unread |= child._unread(inert)
        return unread

    def _rope_params(
        self, layer_type: builtins.str | None, is_scaled: builtins.bool
    ) -> dict[builtins.str, Any]:
        new = self._typed("rope_parameters", "an object", _is(dict), {})
        if layer_type is not None and isinstance(new.get(layer_type), dict):
            self._rope_types_read.add(layer_type)
            new = new[layer_type]
        old = self._typed("rope_scaling", "an object", _is(dict), {})
        return join_rope_spellings(new, old if is_scaled else {})

    def _also_in(
        self, nested: HFConfig, keys: Keys, nested_key: builtins.str, absent: builtins.float
    ) -> builtins.float:
        """A number that stands under one of ``keys`` here, or under ``nested_key`` there."""
        here, there = self.optional_float(keys), nested.optional_float(nested_key)
        if here is not None and there not in (None, here):
            raise UnsupportedModelError(
                f"config keys {self._path + self._find(keys)[0]!r} = {here:g} and "
                f"{nested._path + nested_key!r} = {there:g} mean the same and differ; "
                "drop one with --hf-overrides"
            )
        found = there if here is None else here
        return absent if found is None else found

    def _rope_type(self, params: dict[builtins.str, Any]) -> builtins.str:
        """Takes the type out of ``params``, where it may stand under two names."""
        said = [params.pop(key) for key in ("rope_type", "type") if key in params]
        names = [_ROPE_ALIASES.get(str(name), str(name)) for name in said]
        if len(set(names)) > 1:
            raise UnsupportedModelError(
                f"config key 'rope_scaling' has rope_type {names[0]!r} and type {names[1]!r}, "
                "which mean the same and differ; set both, or drop one with --hf-overrides"
            )
        return names[0] if names else "default"

    def _checked_rope_params(
        self, kind: builtins.str, params: dict[builtins.str, Any]
    ) -> dict[builtins.str, Any]:
        required, optional = _ROPE_PARAMS[kind]
        length_key = "original_max_position_embeddings"
        if length_key in required + optional and length_key not in params:
            length = self.optional_int(length_key)
            if length is not None:
                params = params | {length_key: length}
        missing = [key for key in required if key not in params]
        unknown = [key for key in params if key not in required + optional]
        for word, keys in (("lacks", missing), ("has unknown", unknown)):
            if keys:
                raise UnsupportedModelError(
                    f"config key 'rope_scaling' of type {kind!r} {word} {', '.join(keys)}; "
                    f"it takes {', '.join(required + optional) or 'no parameters'}"
                )
        for key, value in params.items():
            wanted, is_type = _ROPE_TYPES.get(key, ("a number", _is_number))
            if not is_type(value):
                raise UnsupportedModelError(
                    f"config key 'rope_scaling.{key}' = {_short(value)} must be {wanted}"
                )
        return params


def join_rope_spellings(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping of ``rope_parameters`` and ``rope_scaling``.

    Both are set only by an override, in the older spelling; where that names a type, it replaces
    all but the base and the rotated share.
    """
    if _names_rope_type(old):
        new = _beside_scaling(new)
    return {key: value for key, value in {**new, **old}.items() if value is not None}


def apply_overrides(
    data: Mapping[str, Any], overrides: Mapping[str, Any] | Callable[[Any], Any] | None
) -> dict[str, Any]:
    """`data` with the user's overrides: a mapping is merged in, a null empties a key. Rotary
    scaling that names its type replaces what was there: the parameters of two types do not mix.

    A function gets a copy, whose keys it can also read and set as attributes, and may change it in
    place or return another.
    """
    result = deepcopy(dict(data))
    if overrides is None:
        return result
    if isinstance(overrides, Mapping):
        return _settled(data, _merged(result, overrides))
    if not callable(overrides):
        raise ValueError(
            f"hf_overrides is {_short(overrides)}; expected a dictionary of config keys, such as "
            '{"rope_theta": 1000000}, or a function of the config'
        )
    config = _AttributeDict(result)
    changed = overrides(config)
    if changed is None:
        return _settled(data, dict(config))
    if not isinstance(changed, Mapping):
        raise ValueError(
            f"the hf_overrides function returned {_short(changed)}; expected the config it was "
            "given, or a dictionary"
        )
    return _settled(data, dict(changed))


class _AttributeDict(dict[str, Any]):
    """What an override function sees, so that those written for attribute configs work."""

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
            data[key] = None  # not dropped: silence may have a meaning of its own
        elif is_inner and is_rope and _names_rope_type(value):
            data[key] = deepcopy({**_beside_scaling(data[key]), **value})
        elif is_inner:
            data[key] = _merged(data[key], value, is_rope)
        else:
            data[key] = deepcopy(value)
    return data


def _settled(before: Mapping[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Rotary embeddings have an older and a newer spelling: what an override says in one of them
    stands, and what the file says in the other gives way."""

    def is_new(key: str) -> bool:
        return after.get(key) is not None and after.get(key) != before.get(key)

    params, scaling = after.get("rope_parameters"), after.get("rope_scaling")
    if not isinstance(params, Mapping):
        return after
    beside = _beside_scaling(params)
    if not is_new("rope_parameters"):
        said = {key for key in beside if is_new(key)}
        kept = {key: value for key, value in params.items() if key not in said}
        return {**after, "rope_parameters": kept}
    if isinstance(scaling, Mapping) and not is_new("rope_scaling"):
        is_by_layer = any(isinstance(value, Mapping) for value in params.values())
        parts = params if is_by_layer or _names_rope_type(params) else {**scaling, **params}
        after = {**after, "rope_parameters": dict(parts), "rope_scaling": None}
    gone = {key: None for key in beside if key in after and not is_new(key)}
    return {**after, **gone}


def _beside_scaling(params: Mapping[str, Any]) -> dict[str, Any]:
    """What parameters of every type may hold, and older files have as keys of their own."""
    return {key: params[key] for key in ("rope_theta", "partial_rotary_factor") if key in params}


def _names_rope_type(scaling: Mapping[str, Any]) -> bool:
    return scaling.keys() & {"type", "rope_type"} != set()


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": x} -> {"a": {"b": x}}."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, key = path.split(".")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[key] = value
    return nested


def _as_tuple(key: Keys) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key


def _says_nothing(key: str, value: Any) -> bool:
    """Whether a key with this value is as good as absent: null, false, 0 or empty."""
    return not value and not (value is False and key in ON_UNLESS_SAID)


def _matches(key: str, patterns: Collection[str]) -> bool:
    return key in patterns or any(fnmatchcase(key, pattern) for pattern in patterns)


def _is(wanted: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, wanted)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def _is_number_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


# Those of `_ROPE_PARAMS` that are no numbers.
_ROPE_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "short_factor": ("a list of numbers", _is_number_list),
    "long_factor": ("a list of numbers", _is_number_list),
    "truncate": ("true or false", _is(bool)),
}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
