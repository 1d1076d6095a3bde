"""Regular expressions as users write them, in the words that llguidance has for the same.

Its dialect is that of Rust. Knows no grammars.
"""

from __future__ import annotations

import re

# An escape, or a class in brackets, in which nothing is an anchor.
_PIECE = re.compile(r"\\[\s\S]|\[\^?\]?(?:\\[\s\S]|[^\]\\])*\]")
_ESCAPE = re.compile(r"\\[\s\S]")
_ANCHORS = {r"\A": "^", r"\Z": "$", r"\z": "$"}


def plain_anchors(pattern: str) -> str:
    r"""With ``^`` and ``$`` for ``\A`` and ``\Z``, as Python writes the ends of a text."""
    return _PIECE.sub(lambda found: _ANCHORS.get(found[0], found[0]), pattern)


def json_spaces(pattern: str) -> str:
    r"""With the four spaces of JSON for ``\s``, which elsewhere are more."""
    return _ESCAPE.sub(lambda found: r"[ \t\r\n]" if found[0] == r"\s" else found[0], pattern)
