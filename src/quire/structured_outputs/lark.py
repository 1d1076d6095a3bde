"""Finds what the compiler of a user's Lark grammar would follow loosely or not at all: JSON
schemas, complements, special tokens, and options of rules. Knows no compilers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_STRING, _REGEX = r'"(?:\\.|[^"\\\n])*"', r"/(?:\\.|[^/\\])+/"
# A string, comment or regular expression, which is skipped; or a bracket, the mark of a complement
# (before a number one of a count), a special token or a keyword.
_PIECE = re.compile(
    rf"{_STRING}|(?:#|//)[^\n]*|{_REGEX}|(?P<opens>[(\[])|(?P<closes>[)\]])|(?P<not>~)(?!\s*[0-9])"
    r"|(?P<token><[^<>\s]+>)|(?P<json>%json[ \t\r\n]*)|\b(?P<option>stop|temperature)[ \t]*="
)
# What a complement is of.
_ATOM = re.compile(
    rf"\s*(?:{_STRING}[a-z]*(?:\.\.{_STRING})?|{_REGEX}[a-z]*|[A-Za-z_][\w-]*|(?P<group>[(\[]))"
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


def with_complements_of_text(source: str) -> str:
    """The grammar with each complement, such as ``~/x/``, of texts only, as a terminal at its end.
    Alone, it admits bytes that are no text: so all that it forbids could begin, and go on."""
    parts: list[str] = []
    terminals: list[str] = []
    end = 0
    for found in _PIECE.finditer(source):
        if found["not"] and found.start() >= end:
            name = f"QUIRE_COMPLEMENT_{len(terminals)}"
            parts.append(f"{source[end : found.start()]} {name} ")
            end = _end_of_atom(source, found.end())
            terminals.append(f"\n{name}: {source[found.start() : end]} & /(?s:.*)/")
    return "".join([*parts, source[end:], *terminals])


def _end_of_atom(source: str, start: int) -> int:
    atom = _ATOM.match(source, start)
    if atom is not None and not atom["group"]:
        return atom.end()
    depth = 0
    for found in _PIECE.finditer(source, start) if atom is not None else ():
        depth += bool(found["opens"]) - bool(found["closes"])
        if found["closes"] and depth == 0:
            return found.end()
    line = source.count("\n", 0, start) + 1
    raise ValueError(
        f"the complement ~ in line {line} of the lark grammar cannot be honoured; write it of a "
        "terminal's name, a string, a regular expression, or a group in parentheses."
    )


def check_words(source: str) -> None:
    """``ValueError`` for an option of a rule that would have no effect, and for a special token,
    by name, number or range: no text has any, and the end of the text is one."""
    for found in _PIECE.finditer(source):
        if not (found["option"] or found["token"]):
            continue
        line = source.count("\n", 0, found.start()) + 1
        what, remedy = f"the special token {found['token']}", "write the text that you expect"
        if found["option"]:
            what = f"the option {found['option']!r} of a rule"
            remedy = _OPTIONS[found["option"]]
        raise ValueError(f"{what} in line {line} of the lark grammar cannot be honoured; {remedy}.")
