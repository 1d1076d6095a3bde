"""HFConfig: a model's config.json, read strictly. Knows nothing about any architecture.

Every key is read by type and noted; a key that nobody read and that is not known to be inert is
refused by name, so that a checkpoint with a new behaviour cannot load silently wrong. Imports no
torch.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from quire.errors import UnsupportedModelError
from quire.models.config_values import is_a, is_fraction, is_int, is_number
from quire.models.inert_keys import INERT_KEYS, ON_UNLESS_SAID
from quire.models.rope_config import (
    SHARE,
    TRAINED_LENGTH,
    RopeConfig,
    check_rope_params,
    join_rope_spellings,
    key_of_scaling,
    needs_factor,
    take_rope_type,
    uses_trained_length,
)
from quire.shown import shown

T = TypeVar("T")
Keys = str | tuple[str, ...]  # a key, or its spellings


_MAX_LAYERS = 10_000  # no model has so many; a description of a million fills the memory


class _Required(Enum):
    REQUIRED = "required"


REQUIRED = _Required.REQUIRED


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
        """A view of this config where the usual key names also find the family's ``spellings``."""
        return HFConfig(self._data, self.architecture, self._path, spellings)

    def int(self, key: Keys, default: builtins.int | _Required = REQUIRED) -> builtins.int:
        value: builtins.int = self._typed(key, "a whole number", is_int, default)
        if key == "num_hidden_layers" and value > _MAX_LAYERS:
            raise UnsupportedModelError(
                f"config key {self._spelling(key)!r} = {value} must be at most {_MAX_LAYERS:,}"
            )
        return value

    def float(self, key: Keys, default: builtins.float | _Required = REQUIRED) -> builtins.float:
        return float(self._typed(key, "a number", is_number, default))

    def fraction(self, key: Keys, default: builtins.float | _Required = REQUIRED) -> builtins.float:
        return float(self._typed(key, "a number from 0 to below 1", is_fraction, default))

    def bool(self, key: Keys, default: builtins.bool | _Required = REQUIRED) -> builtins.bool:
        """A bool; null is refused if the default is true, since transformers reads it as false."""
        if default is True:
            self._refuse_null(key, default)
        return self._typed(key, "true or false", is_a(bool), default)

    def str(self, key: Keys, default: builtins.str | _Required = REQUIRED) -> builtins.str:
        return self._typed(key, "a string", is_a(str), default)

    def list(
        self, key: Keys, default: builtins.list[Any] | _Required = REQUIRED
    ) -> builtins.list[Any]:
        return self._typed(key, "a list", is_a(list), default)

    def optional_int(self, key: Keys) -> builtins.int | None:
        return self._typed(key, "a whole number or null", is_int, None)

    def nullable_int(self, key: builtins.str, *, absent: builtins.int) -> builtins.int | None:
        """As `optional_int`, but an absent key means ``absent`` and only a null means None."""
        return self.optional_int(key) if key in self._data else self.int(key, absent)

    def optional_float(self, key: Keys) -> builtins.float | None:
        value = self._typed(key, "a number or null", is_number, None)
        return None if value is None else float(value)

    def nullable_float(self, key: builtins.str, *, absent: builtins.float) -> builtins.float | None:
        """A float that is ``absent`` if the key is absent and None if it is null."""
        return self.optional_float(key) if key in self._data else absent

    def optional_list(self, key: Keys) -> builtins.list[Any] | None:
        return self._typed(key, "a list or null", is_a(list), None)

    def choice(
        self,
        key: Keys,
        options: Mapping[builtins.str, T],
        default: builtins.str | _Required = REQUIRED,
    ) -> T:
        """The entry of `options` for the key's value; UnsupportedModelError lists the options."""
        value = self.str(key, default)
        if value not in options:
            raise UnsupportedModelError(
                f"config key {self._spelling(key)!r} = {value!r} is not supported for "
                f"{self.architecture}; supported: {', '.join(options)}"
            )
        return options[value]

    def fixed(self, key: Keys, value: Any) -> None:
        """Refuse any value but the one that this family always has; the key may be absent."""
        name, found = self._find(key)
        if found is not None and found != value:
            raise UnsupportedModelError(
                f"config key {self._path + name!r} = {shown(found)} is not supported for "
                f"{self.architecture}, which has {value!r}"
            )

    def nested(self, key: builtins.str) -> HFConfig:
        """The config under `key`, empty if absent; `check_unread` covers its keys too."""
        if key not in self._children:
            data = self._typed(key, "an object", is_a(dict), {})
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
        silent: Mapping[builtins.str, Any] | None = None,
    ) -> RopeConfig:
        """The rotary embedding, from `rope_parameters` (new files) or `rope_theta`, `rope_scaling`.

        The defaults apply to absent keys, and the parameters `silent` if the config has neither
        mapping. `partial_keys` are for families that rotate part of a head; for others the rotated
        share must be `partial`. `layer_type` selects from `rope_parameters` that differ by layer
        type; the single `rope_scaling` of older files applies only if `is_scaled`.
        """
        params, key = self._rope_params(layer_type, is_scaled)
        params = params or dict(silent or {})
        kind = take_rope_type(params, key, self.architecture)
        nested = HFConfig(params, self.architecture, f"{key}.")
        theta = self._also_in(nested, theta_keys, "rope_theta", theta)
        if theta <= 1:
            where = self._path + self._find(theta_keys)[0]
            raise UnsupportedModelError(
                f"config key {where!r} = {theta:g} must be a number above 1"
            )
        share_keys = partial_keys or (SHARE,)
        rotated = self._also_in(nested, share_keys, SHARE, partial)
        if partial != 1 and SHARE not in params:
            self._refuse_null(share_keys, partial)
        if not partial_keys and rotated != partial:
            raise UnsupportedModelError(
                f"config key {SHARE!r} = {rotated} is not supported for "
                f"{self.architecture}, which rotates whole heads"
            )
        own = {name: value for name, value in params.items() if name not in nested._read}
        trained = self.optional_int(TRAINED_LENGTH) if uses_trained_length(kind) else None
        longest = self.optional_int("max_position_embeddings") if needs_factor(kind, own) else None
        return RopeConfig(
            theta=theta,
            type=kind,
            params=check_rope_params(kind, own, key=key, trained_length=trained, longest=longest),
            partial=rotated,
            partial_key=nested._path + SHARE if SHARE in params else self._find(share_keys)[0],
            key=key,
        )

    def check_unread(self, inert: Collection[builtins.str] = ()) -> None:
        """Refuse keys that were not read and are not inert, unless their value counts as absent."""
        unread = self._unread(INERT_KEYS.union(inert))
        if not unread:
            return
        keys = ", ".join(f"{key!r} = {shown(value)}" for key, value in unread.items())
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
                f"config key {self._path + name!r} = {shown(value)} must be {wanted}"
            )
        return value

    def _refuse_null(self, key: Keys, absent: Any) -> None:
        """Refuse a null where transformers takes it for another value than ``absent``."""
        nulls = [name for name in self._all_spellings(key) if name in self._data]
        if nulls and self._find(key)[1] is None:
            raise UnsupportedModelError(
                f"config key {self._path + nulls[0]!r} of {self.architecture} is null, which need "
                f"not mean {shown(absent)}, as silence does; say what it means with --hf-overrides"
            )

    def _find(self, key: Keys) -> tuple[builtins.str, Any]:
        """The spelling in use and its value (None: absent); notes all spellings as read."""
        keys = self._all_spellings(key)
        self._read.update(keys)
        present = {name: self._data[name] for name in keys if self._data.get(name) is not None}
        if not present:
            return keys[0], None
        name, value = next(iter(present.items()))
        for other, its_value in present.items():
            if other != name and its_value != value:
                raise UnsupportedModelError(
                    f"config keys {self._path + name!r} = {shown(value)} and "
                    f"{self._path + other!r} = {shown(its_value)} mean the same and differ; "
                    f"drop one with --hf-overrides"
                )
        return name, value

    def _spelling(self, key: Keys) -> builtins.str:
        return self._path + self._all_spellings(key)[0]

    def _all_spellings(self, key: Keys) -> tuple[builtins.str, ...]:
        """All spellings of a key, the family's own before the usual ones."""
        return tuple(
            spelling
            for usual in _as_tuple(key)
            for spelling in (*self._spellings.get(usual, ()), usual)
        )

    def _unread(self, inert: Collection[builtins.str]) -> dict[builtins.str, Any]:
        """Path -> value of each key that was neither read nor is inert."""
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
    ) -> tuple[dict[builtins.str, Any], builtins.str]:
        """The parameters, and the key where the config has them."""
        new = self._typed("rope_parameters", "an object", is_a(dict), {})
        if layer_type is not None and new:
            if not isinstance(new.get(layer_type), dict):
                raise UnsupportedModelError(
                    f"config key 'rope_parameters' of {self.architecture} must hold an object for "
                    f"each type of layer, and has none under {layer_type!r}; 'rope_scaling' and "
                    "'rope_theta' are for a config without types"
                )
            self._rope_types_read.add(layer_type)
            new = new[layer_type]
        old = self._typed("rope_scaling", "an object", is_a(dict), {})
        old = old if is_scaled else {}
        key = self._path + key_of_scaling(old)
        if layer_type is not None and new and not old:
            key = f"{key}.{layer_type}"
        return join_rope_spellings(new, old), key

    def _also_in(
        self, nested: HFConfig, keys: Keys, nested_key: builtins.str, absent: builtins.float
    ) -> builtins.float:
        """A number under one of ``keys`` here or ``nested_key`` in ``nested``; both must agree."""
        here, there = self.optional_float(keys), nested.optional_float(nested_key)
        if here is not None and there not in (None, here):
            raise UnsupportedModelError(
                f"config keys {self._path + self._find(keys)[0]!r} = {here:g} and "
                f"{nested._path + nested_key!r} = {there:g} mean the same and differ; "
                "drop one with --hf-overrides"
            )
        found = there if here is None else here
        return absent if found is None else found


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
    """Whether a key with this value counts as absent: null, 0, empty, or (mostly) false."""
    return not value and not (value is False and key in ON_UNLESS_SAID)


def _matches(key: str, patterns: Collection[str]) -> bool:
    return key in patterns or any(fnmatchcase(key, pattern) for pattern in patterns)
