"""Translates users' regular expressions into llguidance's dialect, which is Rust's. Knows no
grammars.
"""

from __future__ import annotations

import re

# An escape, or a class in brackets, in which nothing is an anchor.
_PIECE = re.compile(r"\\[\s\S]|\[\^?\]?(?:\\[\s\S]|[^\]\\])*\]")
_ESCAPE = re.compile(r"\\[\s\S]")
_ANCHORS = {r"\A": "^", r"\Z": "$", r"\z": "$"}


def plain_anchors(pattern: str) -> str:
    r"""The pattern with ``^`` and ``$`` for ``\A`` and ``\Z``, as Python writes the ends of a
    text."""
    return _PIECE.sub(lambda found: _ANCHORS.get(found[0], found[0]), pattern)


def json_spaces(pattern: str) -> str:
    r"""The pattern with JSON's four white-space characters for ``\s``, which matches more
    elsewhere."""
    return _ESCAPE.sub(lambda found: r"[ \t\r\n]" if found[0] == r"\s" else found[0], pattern)
