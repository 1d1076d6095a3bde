r"""Translates users' regular expressions into llguidance's dialect, which is Rust's.

Dialects differ about ``\d``, ``\w``, ``\s``, their opposites and the dot: JavaScript's ``\w`` is
ASCII, Python's and Rust's have all letters. Here a class has only what all three agree on, so that
no reader refuses an answer. Knows no grammars.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

# An escape with all that belongs to it.
ESCAPE = r"\\(?:[pPxuU]\{[^{}\\]*\}|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[\s\S])"
# An escape, or a class in brackets, in which nothing is an anchor; without an end, all the rest, so
# that none is searched for again.
_PIECE = re.compile(r"\\[\s\S]|\[\^?\]?(?:\\[\s\S]|[^\]\\])*\]?")
_ESCAPE = re.compile(r"\\[\s\S]")
_ANCHORS = {r"\A": "^", r"\Z": "$", r"\z": "$"}
_THEMSELVES = (r"\<", r"\>")  # in Rust the ends of words, which grammars do not know

# What may stand outside classes: the beginning of one, with an end that it holds as a character, or
# flags, or a single character or escape; and what inside. Classes that nest have operators, and
# dashes at their beginning are characters.
_FLAGS = r"\(\?(?P<on>[A-Za-z]*)(?:-(?P<off>[A-Za-z]*))?(?P<end>[:)])"
_OUTSIDE = re.compile(rf"(?P<begin>\[\^?\]?)|{_FLAGS}|{ESCAPE}|[\s\S]")
_INSIDE = re.compile(rf"{ESCAPE}|[\s\S]")
_OUTSIDE_NESTING = re.compile(rf"(?P<begin>\[\^?(?:-+|\]?))|{_FLAGS}|{ESCAPE}|[\s\S]")
_INSIDE_NESTING = re.compile(rf"(?P<begin>\[\^?(?:-+|\]?))|&&|--|~~|{ESCAPE}|[\s\S]")
_OPERATORS = ("&&", "--", "~~")
_DOT = r"[^\n\r\u2028\u2029]"  # JavaScript's line ends
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


def plain_escapes(pattern: str) -> str:
    r"""The pattern with ``^`` and ``$`` for ``\A`` and ``\Z``, as Python writes the ends of a
    text, and with the characters for ``\<`` and ``\>``, as Python and JavaScript read them."""
    pattern = _ESCAPE.sub(
        lambda found: found[0][1:] if found[0] in _THEMSELVES else found[0], pattern
    )
    return _PIECE.sub(lambda found: _ANCHORS.get(found[0], found[0]), pattern)


def json_spaces(pattern: str) -> str:
    r"""The pattern with JSON's four white-space characters for ``\s``, which matches more
    elsewhere."""
    return _ESCAPE.sub(lambda found: r"[ \t\r\n]" if found[0] == r"\s" else found[0], pattern)


def agreed_classes(pattern: str, *, may_nest: bool = False) -> str:
    """The pattern with its classes narrowed to what all dialects agree on; ``ValueError`` where it
    cannot be. Classes ``may_nest``, and have operators, in Rust's dialect."""
    return _Narrowing(may_nest=may_nest).of(pattern)


@dataclass(slots=True)
class _Class:
    """A class in brackets that is open."""

    adds: bool  # whether its characters are among those that the pattern matches
    operand_adds: bool  # likewise its current operand's, which a set difference takes away
    item: list[str]  # that is open: nothing, a character or escape, or one and a dash
    places: list[int] = field(default_factory=list)  # of the operand's class escapes
    has_escapes: bool = False
    is_symmetric: bool = False  # whether it has the symmetric difference ~~


class _Narrowing:
    """One pass over a pattern: what is written, and which groups and classes are open."""

    def __init__(self, *, may_nest: bool) -> None:
        self._outside = _OUTSIDE_NESTING if may_nest else _OUTSIDE
        self._inside = _INSIDE_NESTING if may_nest else _INSIDE
        self._words: list[str] = []
        self._dot_is_all = [False]  # per group, the pattern first
        self._classes: list[_Class] = []

    def of(self, pattern: str) -> str:
        at = 0
        while found := (self._inside if self._classes else self._outside).match(pattern, at):
            at = found.end()
            if found.groupdict().get("begin"):
                self._begin_class(found[0])
            elif self._classes:
                self._go_on_in_class(self._classes[-1], found[0])
            else:
                self._words.append(self._narrowed(found))
        if self._classes:
            raise ValueError(r"a class in a pattern has no end; for the character '[' write '\['.")
        return "".join(self._words)

    def _narrowed(self, found: re.Match[str]) -> str:
        """What stands for a piece outside classes; follows the groups and their flags."""
        word = found[0]
        if found["end"]:
            self._set_flags(found)
        elif word == "(":
            self._dot_is_all.append(self._dot_is_all[-1])
        elif word == ")" and len(self._dot_is_all) > 1:
            self._dot_is_all.pop()
        elif word == "." and not self._dot_is_all[-1]:
            return _DOT
        return f"[{_IN_ALL[word]}]" if word in _IN_ALL else word

    def _set_flags(self, found: re.Match[str]) -> None:
        """For a new group after ``(?s:``, and for the rest of the current one after ``(?s)``."""
        if "x" in found["on"]:
            raise ValueError(
                "the flag x in a pattern cannot be honoured; write the pattern without spaces and "
                "comments."
            )
        is_all = "s" in found["on"] or (self._dot_is_all[-1] and "s" not in (found["off"] or ""))
        if found["end"] == ")":
            self._dot_is_all.pop()
        self._dot_is_all.append(is_all)

    def _begin_class(self, word: str) -> None:
        around = self._classes[-1] if self._classes else None
        if around and len(around.item) == 2:
            raise ValueError(
                "'-[' within a class is read in two ways; write '--[' to leave characters out, or "
                r"'\-[' for the character '-'."
            )
        if around:
            around.item.clear()
        adds = (around is None or around.operand_adds) is not word.startswith("[^")
        item = ["]"] if word[-1] == "]" else []
        self._classes.append(_Class(adds=adds, operand_adds=adds, item=item))
        self._words.append(word)

    def _go_on_in_class(self, current: _Class, word: str) -> None:
        if word == "]":
            self._end_operand(current)
            self._end_class(current)
        elif word in _OPERATORS:
            self._end_operand(current)
            current.operand_adds = current.adds is not (word == "--")
            current.is_symmetric |= word == "~~"
        else:
            word = self._in_item(current.item, word)
            if word in _IN_ALL:
                current.places.append(len(self._words))
        self._words.append(word)

    def _in_item(self, item: list[str], word: str) -> str:
        """What stands for a character, escape or dash. A dash between two makes a range, and is
        itself, as in JavaScript, where one of them is an escape for many."""
        if len(item) == 2:
            is_range = item[0] not in _IN_ALL and word not in _IN_ALL
            item.clear()
            if is_range:
                return word
            self._words[-1] = r"\-"
        elif item and word == "-":
            item.append(word)
            return word
        else:
            item[:] = [word]
        return r"\-" if word == "-" else word

    def _end_operand(self, current: _Class) -> None:
        r"""Write what stands for its class escapes. One like ``[\s\S]``, of everything, stays as it
        is."""
        if len(current.item) == 2 and current.item[0] in _IN_ALL:
            self._words[-1] = r"\-"
        current.item.clear()
        escapes = {self._words[place] for place in current.places}
        if not any(escapes.issuperset(both) for both in _OPPOSITES):
            meaning = _IN_ALL if current.operand_adds else _IN_ANY
            for place in current.places:
                self._words[place] = meaning[self._words[place]]
        current.has_escapes |= bool(escapes)
        current.places.clear()

    def _end_class(self, current: _Class) -> None:
        if current.has_escapes and current.is_symmetric:
            raise ValueError(
                r"'~~' in a class with escapes like \w cannot be honoured, as dialects differ in "
                r"them; name the characters, such as 0-9A-Z_a-z or \p{L}."
            )
        self._classes.pop()
        if self._classes:
            self._classes[-1].has_escapes |= current.has_escapes
