r"""Translates users' regular expressions into llguidance's dialect, which is Rust's.

Dialects differ about ``\d``, ``\w``, ``\s``, their opposites and the dot: JavaScript's ``\w`` is
ASCII, Python's and Rust's have all letters. Here a class has only what all three agree on, so that
no reader refuses an answer. Knows no grammars.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# An escape, or a class in brackets, in which nothing is an anchor.
_PIECE = re.compile(r"\\[\s\S]|\[\^?\]?(?:\\[\s\S]|[^\]\\])*\]")
_ESCAPE = re.compile(r"\\[\s\S]")
_ANCHORS = {r"\A": "^", r"\Z": "$", r"\z": "$"}

# What begins a class, with an end that it holds as a character, or a single character or escape.
_ATOM = re.compile(r"\[\^?\]?|\\[\s\S]|[\s\S]")
_BODY = re.compile(r"(?:\\[\s\S]|[^\]\\])*")
_DOT = r"[^\n\r\u2028\u2029]"  # JavaScript's line ends
_DOT_IS_ALL = re.compile(r"\(\?[A-Za-z]*s")  # flags
# Bodies of classes: what a class escape has in all dialects, and what it has in any.
_IN_ALL: Mapping[str, str] = {
    r"\d": "0-9",
    r"\D": r"\P{Nd}",
    r"\w": "0-9A-Z_a-z",
    r"\W": r"\x01-\x2F\x3A-\x40\x5B-\x5E\x60\x7B-\x7F",
    r"\s": r"\t-\r\x20\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000",
    r"\S": (
        r"\x01-\x08\x0E-\x1B\x21-\u0084\u0086-\u009F\u00A1-\u167F\u1681-\u180D\u180F-\u1FFF"
        r"\u200B-\u2027\u202A-\u202E\u2030-\u205E\u2060-\u2FFF\u3001-\uFEFE\uFF00-\U0010FFFF"
    ),
}
_IN_ANY: Mapping[str, str] = {
    r"\d": r"\p{Nd}",
    r"\D": r"\x00-\x2F\x3A-\U0010FFFF",
    r"\w": r"0-9A-Z_a-z\u0080-\U0010FFFF",
    r"\W": r"\x00-\x2F\x3A-\x40\x5B-\x5E\x60\x7B-\U0010FFFF",
    r"\s": (
        r"\t-\r\x1C-\x20\u0085\u00A0\u1680\u180E\u2000-\u200A\u2028\u2029\u202F\u205F\u3000\uFEFF"
    ),
    r"\S": (
        r"\x00-\x08\x0E-\x1F\x21-\u009F\u00A1-\u167F\u1681-\u1FFF\u200B-\u2027"
        r"\u202A-\u202E\u2030-\u205E\u2060-\u2FFF\u3001-\U0010FFFF"
    ),
}
_OPPOSITES = [(r"\d", r"\D"), (r"\w", r"\W"), (r"\s", r"\S")]


def plain_anchors(pattern: str) -> str:
    r"""The pattern with ``^`` and ``$`` for ``\A`` and ``\Z``, as Python writes the ends of a
    text."""
    return _PIECE.sub(lambda found: _ANCHORS.get(found[0], found[0]), pattern)


def json_spaces(pattern: str) -> str:
    r"""The pattern with JSON's four white-space characters for ``\s``, which matches more
    elsewhere."""
    return _ESCAPE.sub(lambda found: r"[ \t\r\n]" if found[0] == r"\s" else found[0], pattern)


def agreed_classes(pattern: str, *, may_nest: bool = False) -> str:
    """The pattern with its classes narrowed to what all dialects agree on. Classes ``may_nest`` in
    Rust's dialect."""
    has_dot = not _DOT_IS_ALL.search(pattern)
    words: list[str] = []
    classes: list[Mapping[str, str]] = []  # that are open, by what stands for escapes in them
    for found in _ATOM.finditer(pattern):
        word = found[0]
        if word[0] == "[" and (may_nest or not classes):
            classes.append(_of_class(found, classes[-1] if classes else _IN_ALL))
        elif word[0] != "\\" and word[-1] == "]" and classes:
            classes.pop()
        elif classes:
            word = classes[-1].get(word, word)
        elif word in _IN_ALL:
            word = f"[{_IN_ALL[word]}]"
        elif word == "." and has_dot:
            word = _DOT
        words.append(word)
    return "".join(words)


def _of_class(begin: re.Match[str], around: Mapping[str, str]) -> Mapping[str, str]:
    r"""What stands for escapes in the class that begins there. One like ``[\s\S]``, of everything,
    stays as it is."""
    body = _BODY.match(begin.string, begin.end())
    escapes = set(_ESCAPE.findall(body[0] if body else ""))
    if any(escapes.issuperset(both) for both in _OPPOSITES):
        return {}
    if not begin[0].startswith("[^"):
        return around
    return _IN_ALL if around is _IN_ANY else _IN_ANY
