"""A wrong value as an error message quotes it. Knows nothing about what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def shown(value: Any, max_chars: int = 80) -> str:
    """The beginning of the value's ``repr``, without making the rest of a JSON value's."""
    text = ""
    for piece in _pieces(value, max_chars + 1):
        text += piece
        if len(text) > max_chars:
            break
    return cut(text, max_chars)


def cut(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else text[: max_chars - 3] + "..."


def _pieces(value: Any, most: int) -> Iterator[str]:
    """The ``repr`` of a JSON value, piece by piece, with strings cut to ``most`` characters."""
    if isinstance(value, dict):
        yield "{"
        for i, (key, one) in enumerate(value.items()):
            yield ", " if i else ""
            yield from _pieces(key, most)
            yield ": "
            yield from _pieces(one, most)
        yield "}"
    elif isinstance(value, list):
        yield "["
        for i, one in enumerate(value):
            yield ", " if i else ""
            yield from _pieces(one, most)
        yield "]"
    else:
        yield repr(value[:most] if isinstance(value, str) else value)
