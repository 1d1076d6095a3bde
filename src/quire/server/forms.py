"""Forms: which keys the objects inside a body may have, as data, and the walk that checks them.

The forms of each API are next to its bodies in `protocol/`. Knows nothing about what keys mean.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from quire.server.errors import bad_request
from quire.server.input_phase import go_on


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """The allowed keys of an object, or of each object in a list."""

    known: tuple[str, ...] = ()  # besides the fields of its model, if it has one
    inside: Mapping[str, Form] = field(default_factory=dict)  # known keys that hold objects
    refused: Mapping[str, str] = field(default_factory=dict)  # unless ""; key -> reason and remedy
    switches: Mapping[str, str] = field(default_factory=dict)  # like refused, but false is fine
    # Named in place of unknown keys if it is missing; key -> a correct object, for the error.
    required: Mapping[str, str] = field(default_factory=dict)
    # Forms by the object's "type", in place of all above; other types are left to their reader.
    types: Mapping[str, Form] = field(default_factory=dict)
    default_type: str = ""
    is_for_template: bool = False  # keys that the chat template names are allowed too


@dataclass(frozen=True, slots=True)
class UnknownKey:
    """A key that would have no effect."""

    place: str  # messages[0].foo
    name: str
    known: tuple[str, ...]  # keys to suggest in its place


_WITH_KEYS = (BaseModel, dict, list)


def unknown_keys(
    value: Any, form: Form, place: str, template: Callable[[], str]
) -> Iterator[UnknownKey]:
    """The unknown keys of an object, or of each object in a list; keys without a value pass."""
    if isinstance(value, list):
        for i, one in enumerate(value):
            if isinstance(one, _WITH_KEYS):  # a prompt may have very many ids
                yield from unknown_keys(one, form, f"{place}[{i}]", template)
        return
    if isinstance(value, BaseModel):
        fields: tuple[str, ...] = tuple(type(value).model_fields)
        items = {**value.__dict__, **(value.model_extra or {})}
        yield from _unknown_of(items, fields, form, place, template)
    elif isinstance(value, dict):
        own_form = _of_type(form, value)
        if own_form is not None:
            yield from _unknown_of(value, (), own_form, place, template)


def _unknown_of(
    items: Mapping[str, Any],
    fields: tuple[str, ...],
    form: Form,
    place: str,
    template: Callable[[], str],
) -> Iterator[UnknownKey]:
    known = (*fields, *form.known, *form.inside)
    for name, one in items.items():
        go_on()
        own_place = f"{place}.{name}" if place else str(name)
        if one is None or one == [] or one == {}:
            continue
        if (name in form.switches and one is False) or (name in form.refused and one == ""):
            continue
        why_not = form.refused.get(name) or form.switches.get(name)
        if why_not is not None and not _reads(form, name, template):
            raise bad_request(f"{own_place} is not supported: {why_not}.", own_place)
        if name in form.inside:
            yield from unknown_keys(one, form.inside[name], own_place, template)
        elif name not in known and not _reads(form, name, template):
            _check_required(items, form, place)
            yield UnknownKey(own_place, name, known)


def _check_required(items: Mapping[str, Any], form: Form, place: str) -> None:
    for name, correct in form.required.items():
        if items.get(name) is None:
            own_place = f"{place}.{name}"
            message = f"{own_place}: is missing; correct usage: `{correct}`."
            raise bad_request(message, own_place)


def _of_type(form: Form, value: Mapping[str, Any]) -> Form | None:
    if not form.types:
        return form
    kind = value.get("type")
    if kind is None:
        kind = form.default_type
    return form.types.get(kind) if isinstance(kind, str) else None


def _reads(form: Form, name: str, template: Callable[[], str]) -> bool:
    """Whether the template names the key, and may read it."""
    return form.is_for_template and is_named(template(), name)


def is_named(template: str, name: str) -> bool:
    """Whether the template has the key, by a cached set of words: a body may have so many keys
    that a search for each takes too long."""
    if name.isidentifier():
        return name in _words(template)
    return any(f"{quote}{name}{quote}" in template for quote in "'\"")


@functools.lru_cache(maxsize=8)
def _words(template: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", template))
