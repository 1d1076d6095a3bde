r"""Rewrites patterns so that xgrammar follows them exactly, and lengths of texts as patterns.

xgrammar writes a character of a pattern into JSON as it is, so ``"``, ``\`` and control characters,
which JSON must escape, would give broken JSON. It matches a pattern against the whole text, ignores
anchors inside, reads ``\x61b`` as one number, treats a pattern with a character beyond ASCII
differently, without leaving anything out for JSON, has surrogates in classes, and admits bytes that
are no text for a range whose ends have different numbers of bytes. So patterns are rewritten: with
both anchors, each class as its ranges, split by number of bytes, and all characters but letters,
digits and spaces by their codes. `why_not` refuses what xgrammar was found to ignore. Knows no
schemas.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_LENGTH = 1000  # compile time grows with the square of a length; up to this one, under a second
MAX_CHARACTERS = 1 << 20  # of a rewritten pattern
Ranges = list[tuple[int, int]]  # of characters, each with its first and last


@dataclass(frozen=True, kw_only=True, slots=True)
class TextKind:
    """Characters that a kind of text never has, whatever a pattern says."""

    never: tuple[tuple[int, int], ...]  # ranges of characters
    why: str  # of such a character


_HALVES = (0xD800, 0xDFFF)  # surrogates
IN_JSON = TextKind(
    never=((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F), _HALVES),
    why="must be escaped in JSON",
)
PLAIN = TextKind(never=(_HALVES,), why="is no character")

_LAST = 0x10FFFF
_OF_SAME_BYTES = ((0, 0x7F), (0x80, 0x7FF), (0x800, 0xFFFF), (0x10000, _LAST))
_LINE_ENDS: Ranges = [(0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029)]

_ESCAPE = r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|u\{[0-9A-Fa-f]+\}|[\s\S])"
_PIECE = re.compile(
    rf"(?P<escape>{_ESCAPE})|\[(?P<not>\^?)(?P<body>(?:{_ESCAPE}|[^\]\\])+)\]"
    r"|(?P<group>\(\?(?::|P?<[A-Za-z_]\w*>)?)|(?P<count>(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})[+?]?)"
    r"|(?P<other>[\s\S])"
)
_ATOM = re.compile(rf"{_ESCAPE}|[\s\S]")
_CLASS_ESCAPE = re.compile(r"\\[dDwWsS]")
_OF_CHARACTER = re.compile(r"\\[xu]\{?(?P<code>[0-9A-Fa-f]+)\}?|\\(?P<itself>[^\w\s]|[ _])")
_OPENS_NOTHING = {
    "[": r"a class is empty or has no end, or begins with its own end; for the character write \[",
    "{": r"'{' begins no count; for the character write \{",
}


def length_pattern(least: int, most: int | None) -> str:
    """A pattern for texts of these lengths whose characters JSON need not escape."""
    return f"^{_any_in_json()}{{{least},{'' if most is None else most}}}$"


def followed(pattern: str) -> str:
    """Rewrite a pattern that `why_not` accepts. It then matches the same texts, if JSON need not
    escape their characters; where Python, Rust and JavaScript differ about a class, only what all
    of them match."""
    anything = f"{_any_in_json()}*"
    found = [
        ("" if pieces[:1] == ["^"] else anything)
        + _without_anchors(pieces)
        + ("" if pieces[-1:] == ["$"] else anything)
        for pieces in _alternatives(pattern, IN_JSON)
    ]
    return f"^(?:{'|'.join(found)})$"


def followed_whole(pattern: str) -> str:
    """`followed` for texts that are no JSON and that match the pattern from end to end."""
    return f"(?:{'|'.join(map(_without_anchors, _alternatives(pattern, PLAIN)))})"


def why_not(pattern: str, text: TextKind = IN_JSON) -> str | None:
    """Why xgrammar would not follow the pattern exactly; None if it would."""
    depth, last = 0, ""  # of groups; what was the last piece of the alternative
    num_characters = 0
    for found in _PIECE.finditer(pattern):
        kind = _kind(found)
        reason = _why_not_piece(found, text)
        if reason is None and kind == "*" and last in ("", "^", "(", "|"):
            reason = f"nothing stands before the count {found[0]!r}"
        if reason is not None:
            return reason
        num_characters += len(_words(found, text))
        depth += {"(": 1, ")": -1}.get(kind, 0)
        if (kind, depth) == ("|", 0):
            last = ""
            continue
        if last == "$" or (kind == "^" and last) or (kind == "$" and depth):
            return "an anchor is neither at its beginning nor at its end"
        last = kind
    return "it is too long" if num_characters > MAX_CHARACTERS else None


def _alternatives(pattern: str, text: TextKind) -> list[list[str]]:
    """The rewritten pieces of each alternative, with its anchors."""
    found: list[list[str]] = [[]]
    depth = 0  # of groups
    for piece in _PIECE.finditer(pattern):
        kind = _kind(piece)
        depth += {"(": 1, ")": -1}.get(kind, 0)
        if (kind, depth) == ("|", 0):
            found.append([])
        else:
            found[-1].append(_words(piece, text))
    return found


def _without_anchors(pieces: list[str]) -> str:
    return "".join(one for one in pieces if one not in ("^", "$"))


def _kind(found: re.Match[str]) -> str:
    """The kind of a piece: ``(`` for all that begin a group, ``*`` for counts, ``x`` for classes
    and escapes, else the character itself."""
    if found["other"] is not None:
        return found[0]
    if found["count"] is not None:
        return "*"
    return "x" if found["group"] is None else "("


def _why_not_piece(found: re.Match[str], text: TextKind) -> str | None:
    if found["body"] is not None:
        return _why_not_class(found["body"], text, is_negated=bool(found["not"]))
    if found["count"] is not None:
        gives_back = len(found[0]) == 1 or found[0][-1] != "+"
        return None if gives_back else f"{found[0]!r} is a possessive count"
    if found["group"] == "(?":
        return "it has look-around, or flags"
    if found["group"] is not None:
        return None
    return _OPENS_NOTHING.get(found[0]) or _why_not_atom(found[0], text)


def _why_not_class(body: str, text: TextKind, *, is_negated: bool) -> str | None:
    atoms = _ATOM.findall(body)
    reasons = [_why_not_atom(one, text) for one in atoms if one != "-"]
    unknown = [one for one in atoms if one != "-" and _character(one) is None]
    if any(not _CLASS_ESCAPE.fullmatch(one) for one in unknown):
        return f"the class [{body}] has an unknown escape"
    if any(first > last for first, last in _ranges(body, may_be=True)):
        return f"the class [{body}] has a range that ends before it begins"
    has_plain = is_negated or any(one is None for one in reasons)
    if has_plain and _within(body, text, is_negated=is_negated):
        return None
    return f"the class [{body}] has only what {text.why}"


def _why_not_atom(atom: str, text: TextKind) -> str | None:
    if _CLASS_ESCAPE.fullmatch(atom):
        return None
    character = _character(atom)
    if character is None:
        return f"the escape {atom!r} is unknown"
    if any(first <= ord(character) <= last for first, last in text.never):
        return f"{atom!r} {text.why}"
    return None


def _character(atom: str) -> str | None:
    """The character that an atom stands for; None if it is no single one."""
    if not atom.startswith("\\"):
        return atom
    if atom[1:] in _CONTROL:
        return _CONTROL[atom[1:]]
    found = _OF_CHARACTER.fullmatch(atom)
    if found is None:
        return None
    if found["itself"]:
        return found["itself"]
    code = int(found["code"], 16)
    return chr(code) if code <= _LAST else None


_CONTROL = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}


def _words(found: re.Match[str], text: TextKind) -> str:
    """One piece, rewritten."""
    if found["body"] is not None:
        return _class_words(found["body"], text, is_negated=bool(found["not"]))
    if found["group"] is not None or found[0] == "(":
        return "(?:"
    if found["count"] is not None:
        count = found[0][:1] + found[0][1:].removesuffix("?")
        return "{0,1}" if count == "?" else count  # of (ab*)? it would admit b
    if found[0] in ("^", "$", "|", ")"):
        return found[0]
    if found[0] == ".":
        return _in_words(_complement([*text.never, *_LINE_ENDS]))
    character = _character(found[0])
    if character is None:
        return _class_words(found[0], text, is_negated=False)
    return _literal(character)


@functools.lru_cache(maxsize=256)
def _class_words(body: str, text: TextKind, *, is_negated: bool) -> str:
    return _in_words(_within(body, text, is_negated=is_negated))


@functools.cache
def _any_in_json() -> str:
    return _in_words(_complement(IN_JSON.never))


def _within(body: str, text: TextKind, *, is_negated: bool) -> Ranges:
    """The characters of a class that may be in the text."""
    if is_negated:
        return _complement([*_ranges(body, may_be=True), *text.never])
    return _complement([*_complement(_ranges(body, may_be=False)), *text.never])


def _ranges(body: str, *, may_be: bool) -> Ranges:
    """The characters of a class: those that it surely matches, or that it ``may_be`` matching."""
    atoms = _ATOM.findall(body)
    out: Ranges = []
    while atoms:
        first = _character(atom := atoms.pop(0))
        if first is None:
            out += _of_class_escape(atom[1], may_be)
            continue
        last = _character(atoms[1]) if len(atoms) > 1 and atoms[0] == "-" else None
        if last is not None:
            del atoms[:2]
        out.append((ord(first), ord(last or first)))
    return out


@functools.cache
def _of_class_escape(letter: str, may_be: bool) -> Ranges:
    r"""The characters of a class escape, sure or possible ones: JavaScript has only ASCII in ``\w``
    and ``\d``, others have more, and they differ in spaces."""
    if letter.isupper():
        return _complement(_of_class_escape(letter.lower(), not may_be))
    sure: Ranges = {
        "d": [(0x30, 0x39)],
        "w": [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
        "s": [(0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0)],
    }[letter]
    if not may_be:
        return sure
    more: Ranges = [(0xFEFF, 0xFEFF)] if letter == "s" else []
    return [*sure, (0x80, _LAST)] if letter == "w" else [*_in_python(f"\\{letter}"), *more]


def _in_python(pattern: str) -> Ranges:
    """All characters that Python matches by ``pattern``."""
    characters = "".join(map(chr, range(_LAST + 1)))
    runs = re.finditer(f"{pattern}+", characters)
    return [(found.start(), found.end() - 1) for found in runs]


def _complement(ranges: Iterable[tuple[int, int]]) -> Ranges:
    out: Ranges = []
    start = 0
    for first, last in sorted(ranges):
        if first > start:
            out.append((start, first - 1))
        start = max(start, last + 1)
    return [*out, (start, _LAST)] if start <= _LAST else out


def _in_words(ranges: Ranges) -> str:
    """The ranges as one class for each number of bytes, which no range of xgrammar's may cross."""
    classes = []
    for low, high in _OF_SAME_BYTES:
        within = [(max(a, low), min(b, high)) for a, b in ranges if a <= high and b >= low]
        if within:
            words = (
                _literal(chr(a)) + (f"-{_literal(chr(b))}" if b > a else "") for a, b in within
            )
            classes.append(f"[{''.join(words)}]")
    return classes[0] if len(classes) == 1 else f"(?:{'|'.join(classes)})"


def _literal(character: str) -> str:
    is_plain = character == " " or (character.isascii() and character.isalnum())
    return character if is_plain else f"\\u{{{ord(character):x}}}"
