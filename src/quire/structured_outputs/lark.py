"""Finds what the compiler of a user's Lark grammar would follow loosely or not at all: JSON
schemas, and options of rules. Knows no compilers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

# A string, comment, regular expression or special token, which is skipped; or a keyword.
_PIECE = re.compile(
    r'"(?:\\.|[^"\\\n])*"|(?:#|//)[^\n]*|/(?:\\.|[^/\\])+/|<[^<>\s]+>'
    r"|(?P<json>%json[ \t\r\n]*)|\b(?P<option>stop|temperature)[ \t]*="
)
# Options of rules that would have no effect, and what to write instead.
_OPTIONS = {
    "stop": "use suffix, with which the text keeps what it ends with",
    "temperature": "set the temperature of the request",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class InlineSchema:
    """A schema after the word ``%json``."""

    schema: Any
    path: str  # where it is, for errors
    start: int  # of the word, in the grammar
    end: int


def inline_schemas(source: str) -> Iterator[InlineSchema]:
    """The schemas after each ``%json``; ``ValueError`` for broken JSON, or for more than JSON has,
    such as infinite numbers."""
    for found in _PIECE.finditer(source):
        if found["json"]:
            line = source.count("\n", 0, found.start()) + 1
            try:
                schema, end = json.JSONDecoder().raw_decode(source, found.end())
                json.dumps(schema, ensure_ascii=False, allow_nan=False).encode()
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"the lark grammar has no JSON schema after %json in line {line}: {error}; "
                    "use JSON's types only."
                ) from None
            path = f"%json (line {line})"
            yield InlineSchema(schema=schema, path=path, start=found.start(), end=end)


def with_schemas(source: str, words: Callable[[InlineSchema], str]) -> str:
    """The grammar with each of its schemas replaced by ``words``."""
    parts: list[str] = []
    end = 0
    for one in inline_schemas(source):
        parts += [source[end : one.start], words(one)]
        end = one.end
    return "".join([*parts, source[end:]])


def check_options(source: str) -> None:
    """``ValueError`` for an option of a rule that would have no effect."""
    for found in _PIECE.finditer(source):
        if found["option"]:
            line = source.count("\n", 0, found.start()) + 1
            raise ValueError(
                f"the option {found['option']!r} of a rule in line {line} of the lark grammar "
                f"cannot be honoured; {_OPTIONS[found['option']]}."
            )
