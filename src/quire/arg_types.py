"""Type checks of what Python callers put into `EngineArgs`. Knows types, not limits."""

from __future__ import annotations

import functools
import os
import types
import typing
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

from quire.args import EngineArgs

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a string",
    list: "a list of strings",
    dict: "a dictionary",
    type(None): "None",
}
# Checked by the code that reads them, which takes more types and has messages of its own.
_CHECKED_ELSEWHERE = frozenset({"model", "tokenizer", "dtype", "hf_overrides"})


def check_types(args: EngineArgs) -> None:
    """A ``ValueError`` that names the first field whose value is of a wrong type."""
    for name, kinds in _kinds_by_field().items():
        value = getattr(args, name)
        if isinstance(value, float) and value.is_integer() and {int, str} <= set(kinds):
            continue  # a count may be a computed float, such as 8e3
        if not any(_TESTS[kind](value) for kind in kinds):
            wanted = " or ".join(_WORDS[kind] for kind in kinds)
            raise ValueError(f"{name}={value!r} ({type(value).__name__}) must be {wanted}")


@functools.cache
def _kinds_by_field() -> dict[str, tuple[Any, ...]]:
    """Field -> the types of its annotation, as keys of `_WORDS`."""
    hints = typing.get_type_hints(EngineArgs)
    return {name: _kinds(hints[name]) for name in hints if name not in _CHECKED_ELSEWHERE}


def _kinds(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(kind for part in typing.get_args(hint) for kind in _kinds(part))
    return (typing.get_origin(hint) or hint,)


_TESTS: dict[Any, Callable[[Any], bool]] = {
    int: lambda value: isinstance(value, Integral) and not isinstance(value, bool),
    float: lambda value: isinstance(value, Real) and not isinstance(value, bool),
    bool: lambda value: isinstance(value, bool),
    str: lambda value: isinstance(value, (str, os.PathLike)),
    list: lambda value: (
        isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
    ),
    dict: lambda value: isinstance(value, Mapping),
    type(None): lambda value: value is None,
}
