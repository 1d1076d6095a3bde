r"""Splits patterns with look-ahead, which the compiler does not know, into patterns without it that
a text must all match. That works for look-ahead at the beginning:

* ``^(?=A)B`` is ``^(?:A)`` and ``^B``;
* ``^(?![abc]*$)B``, not of such characters alone, is ``[^abc]`` somewhere and ``^B``;
* ``^(?!a)B`` does not begin so, ``^(?!.*a)B`` and ``^(?!.*aa)B`` have no such character, or no two
  in a row, which is narrowed to the whole text where it is said of its first line.

Elsewhere it works for what widespread generators write: durations of zod, and numbers of
pydantic with limited digits, which are narrowed to numbers (one alternative there has no end).
Knows no grammars.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quire.structured_outputs import schema_walk

# An escape, a class in brackets, or what makes groups and alternatives.
_PIECE = re.compile(r"\\[\s\S]|\[\^?\]?(?:\\[\s\S]|[^\]\\])*\]|[()|]")
_BEGINS = re.compile(r"\^\(\?[=!]")
_QUANTIFIERS = ("?", "*", "+", "{")
# A class without escapes by letters, which other dialects read otherwise.
_MEMBERS = r"\[(\^?)(?!\^)((?:\\[^A-Za-z0-9]|[^\]\\\[])+)\]"
_ONLY = re.compile(rf"\^?{_MEMBERS}\*\$")
_CHARACTER = r"\\[^A-Za-z0-9]|[^\\^$.|?*+()\[\]{}]"
_NONE = re.compile(rf"(?P<within>\.\*)?(?:{_MEMBERS}|(?P<one>{_CHARACTER})(?P<two>(?P=one))?)")
_BLANK = re.compile(r"\^?\\s\*\$")

_DURATION = (
    r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?"
    r"(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$"
)
_SECONDS = r"\d+(?:[.,]\d+)?S"
_CLOCK = rf"T(?:\d+H(?:\d+M)?(?:{_SECONDS})?|\d+M(?:{_SECONDS})?|{_SECONDS})"
_DAYS = r"(?:\d+Y(?:\d+M)?(?:\d+D)?|\d+M(?:\d+D)?|\d+D)"
_SAME = {_DURATION: rf"^P(?:\d+W|{_DAYS}(?:{_CLOCK})?|{_CLOCK})$"}
_DIGITS = re.compile(
    r"\(\?:\\d\{0,(?P<before>\d+)\}\|\(\?=\[\\d\.\]\{1,(?P<all>\d+)\}0\*\$\)"
    r"\\d\{0,(?P=before)\}\\\.\\d\{0,(?P<behind>\d+)\}0\*\$\)$"
)


def without_look_ahead(schema: Any) -> Any:
    """The schema with its patterns split; other look-ahead, and that in patterns of names,
    stays."""
    if not isinstance(schema, Mapping):
        return schema
    out = schema_walk.map_schemas(schema, lambda one, place: without_look_ahead(one))
    if "pattern" in out:
        out["pattern"], *others = split_pattern(out["pattern"])
        if others:
            out["allOf"] = [*out.get("allOf", ()), *({"pattern": one} for one in others)]
    return out


def split_pattern(pattern: str) -> list[str]:
    """Patterns that a text must all match in order to match this one."""
    pattern = _DIGITS.sub(_number, _SAME.get(pattern, pattern))
    others: list[str] = []
    while _BEGINS.match(pattern) and (end := _end_of_first(pattern)) is not None:
        said = _said(pattern[1:end])
        if said is None:
            break
        others.append(said)
        pattern = f"^{pattern[end:]}"
    return [pattern, *others]


def _said(look_ahead: str) -> str | None:
    """The pattern that a look-ahead at the beginning of a text stands for; None if unknown."""
    inner = look_ahead[3:-1]
    if look_ahead.startswith("(?="):
        return f"^(?:{inner})"
    if _BLANK.fullmatch(inner):
        return r"\S"
    if only := _ONLY.fullmatch(inner):
        return f"[{'' if only[1] else '^'}{only[2]}]"
    none = _NONE.fullmatch(inner)
    return none and _without(none)


def _without(none: re.Match[str]) -> str | None:
    """The pattern of texts that do not begin with a character, or do not have it, or not twice in a
    row."""
    one = none["one"]
    other = f"[^{one}]" if one else f"[{'' if none[2] else '^'}{none[3]}]"
    if none["two"]:
        return f"^(?:{one}?{other})*{one}?$" if none["within"] else None
    return f"^{other}*$" if none["within"] else f"^(?:{other}|$)"


def _end_of_first(pattern: str) -> int | None:
    """Where the first group ends; None if it does not apply to the whole pattern."""
    depth, end = 0, None
    for piece in _PIECE.finditer(pattern):
        if piece[0] == "|" and depth == 0:
            return None
        depth += {"(": 1, ")": -1}.get(piece[0], 0)
        if depth == 0 and end is None and piece[0] == ")":
            end = piece.end()
    return None if end is None or pattern.startswith(_QUANTIFIERS, end) else end


def _number(found: re.Match[str]) -> str:
    before, behind = int(found["before"]), int(found["behind"])
    if int(found["all"]) <= before + behind:  # it says more than the counts
        return found[0]
    return rf"(?:\d{{0,{before}}}|\d{{0,{before}}}\.\d{{0,{behind}}}0*)$"
