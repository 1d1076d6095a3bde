r"""Which patterns of texts xgrammar follows, and how the length of a text is said by one.

It writes a character of a pattern into JSON as it is, so ``"``, ``\`` and control characters,
which JSON must escape, make something else than JSON; in classes it leaves them out, but where a
class has nothing else. What else is here was found to be passed over. Knows no schemas.
"""

from __future__ import annotations

import re

MAX_LENGTH = 1000  # in a pattern: compiling takes time that grows with the square, half a second
_CHARACTER = r'[^"\\\x00-\x1f]'
_MUST_BE_ESCAPED = frozenset('"\\\x7f') | set(map(chr, range(0x20)))

_ESCAPE = r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|[\s\S])"
_PIECE = re.compile(
    rf"(?P<escape>{_ESCAPE})|\[(?P<not>\^?)(?P<body>(?:{_ESCAPE}|[^\]\\])+)\]"
    r"|(?P<group>\(\?(?::|P?<[A-Za-z_]\w*>)?)|(?P<count>(?:[*+?]|\{[0-9,]*\})\+)|(?P<other>[\s\S])"
)
_ATOM = re.compile(rf"{_ESCAPE}|[\s\S]")
_CLASS_ESCAPE = re.compile(r"\\[dDwWsS]")
_OF_CHARACTER = re.compile(r"\\[xu](?P<code>[0-9A-Fa-f]+)|\\(?P<itself>[^\w\s]| )")


def length_pattern(least: int, most: int | None) -> str:
    """For texts whose characters JSON need not escape."""
    return f"^{_CHARACTER}{{{least},{'' if most is None else most}}}$"


def why_not(pattern: str) -> str | None:
    """Why it would not be followed to the letter; None if it would."""
    depth, last = 0, ""  # of groups; what was the last piece of the alternative
    for found in _PIECE.finditer(pattern):
        reason = _why_not_piece(found)
        if reason is not None:
            return reason
        kind = found[0] if found["other"] is not None else (found["group"] or "x")[:1]
        depth += {"(": 1, ")": -1}.get(kind, 0)
        if (kind, depth) == ("|", 0):
            last = ""
            continue
        if last == "$" or (kind == "^" and last) or (kind == "$" and depth):
            return "an anchor stands neither at its beginning nor at its end"
        last = kind
    return None


def _why_not_piece(found: re.Match[str]) -> str | None:
    if found["body"] is not None:
        return _why_not_class(found["body"], is_negated=bool(found["not"]))
    if found["count"] is not None:
        return f"{found[0]!r} gives nothing back"
    if found["group"] == "(?":
        return "it looks around, or has flags"
    if found["group"] is not None:
        return None
    return _why_not_atom(found[0])


def _why_not_class(body: str, *, is_negated: bool) -> str | None:
    atoms = _ATOM.findall(body)
    reasons = [_why_not_atom(one) for one in atoms if one != "-"]
    unknown = [one for one in atoms if one != "-" and _character(one) is None]
    if any(not _CLASS_ESCAPE.fullmatch(one) for one in unknown):
        return f"the class [{body}] has an escape that is not known"
    has_plain = is_negated or any(one is None for one in reasons)
    return None if has_plain else f"the class [{body}] has only what JSON must escape"


def _why_not_atom(atom: str) -> str | None:
    if _CLASS_ESCAPE.fullmatch(atom):
        return None
    character = _character(atom)
    if character is None:
        return f"the escape {atom!r} is not known"
    if character in _MUST_BE_ESCAPED:
        return f"{atom!r} must be escaped in JSON"
    return None


def _character(atom: str) -> str | None:
    """That an escape or a character stands for; None if that is no single one."""
    if not atom.startswith("\\"):
        return atom
    if atom[1:] in _CONTROL:
        return _CONTROL[atom[1:]]
    found = _OF_CHARACTER.fullmatch(atom)
    if found is None:
        return None
    return found["itself"] or chr(int(found["code"], 16))


_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
