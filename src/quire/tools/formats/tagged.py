"""Formats in which each argument is plain text in tags of its own, which becomes JSON.

Arguments that are strings are streamed; others must be complete before their type is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from quire.incremental import Emit, Marks, Source, Steps, peek, skip, take, take_while
from quire.tools.definitions import TEXT, Tools
from quire.tools.events import CallEvents
from quire.tools.json_text import MAX_NAME, is_name, json_string
from quire.tools.parser import Grammar, content_with_calls
from quire.tools.values import Kinds, json_value

_NOT_NAME = re.compile(r"[<>\n\"]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tags:
    """The tags of a format, in the order in which they stand."""

    begin: str
    name: str  # before the name; may be empty
    after_name: str  # may be empty
    key: str
    after_key: str
    value: str  # before a value, after white space; may be empty
    after_value: str
    after_call: str
    end: str  # may equal after_call
    has_lines: bool  # a value has lines of its own: the breaks around it are no part of it


def tagged(tags: Tags) -> Grammar:
    """A grammar for calls with these tags; those that only surround others may be missing."""

    def grammar(source: Source, out: CallEvents, tools: Tools) -> Steps[None]:
        reader = _TagReader(source, out, tools, tags)
        triggers = Marks([tags.begin, tags.name or tags.begin])
        return content_with_calls(source, out, triggers, reader.read)

    return grammar


class _TagReader:
    def __init__(self, source: Source, out: CallEvents, tools: Tools, tags: Tags) -> None:
        self._source = source
        self._out = out
        self._tools = tools
        self._tags = tags
        self._next = Marks([tags.key, tags.after_call, tags.end])
        # Models forget to close a value: other tags at the beginning of a line end it too. But tags
        # that end a call do not if the value is closed after them, before a parameter or call
        # begins at the beginning of a line or directly after a call.
        call_ends = (tags.after_call, tags.end) if tags.has_lines else ()
        begins = (tags.key, tags.name, tags.begin) if tags.has_lines else ()
        self._unsure = frozenset(f"\n{one}" for one in call_ends)
        ends = [f"\n{one}" for one in (tags.after_value, tags.key) if tags.has_lines]
        self._after_value = Marks([tags.after_value, *ends, *self._unsure])
        self._deciding = Marks(
            [
                tags.after_value,
                *(f"{before}{one}" for before in ("\n", *call_ends) for one in begins),
            ]
        )
        self._decided_to = 0  # up to there it is known whether values are closed
        self._is_closed = False
        self._kinds: dict[tuple[str, str], Kinds] = {}  # of parameters that have been met
        self._num_arguments = 0

    def read(self, mark: str) -> Steps[None]:
        """Read a call from after its first mark to after its last, as far as the text fits."""
        source, tags = self._source, self._tags
        if mark != tags.name:
            yield from skip(source)
            if tags.name and not (yield from Marks([tags.name]).take(source)):
                return
        name = (yield from take_while(source, _NOT_NAME, MAX_NAME)).strip()
        if tags.after_name and not (yield from Marks([tags.after_name]).take(source)):
            return
        yield from skip(source)
        if not is_name(name) or not (yield from self._next.at(source)):
            return
        yield from self._read_arguments(name)
        if tags.end != tags.after_call:
            resume = source.pos
            yield from skip(source)
            if not (yield from Marks([tags.end]).take(source)) and (yield from peek(source)):
                source.pos = resume

    def _read_arguments(self, name: str) -> Steps[None]:
        """Read the arguments, now that it surely is a call; other text becomes content after it."""
        source, out, tags = self._source, self._out, self._tags
        out.begin(name)
        self._num_arguments = 0
        other: list[str] = []
        mark = tags.key
        while mark == tags.key:
            start = source.pos
            yield from skip(source)
            mark = yield from self._next.take(source)
            if mark == tags.key:
                if not (yield from self._read_argument(name)):
                    other.append(source.between(start, source.pos))
            elif not mark:
                other.append(source.between(start, source.pos))
                mark = yield from self._next.find(source, other.append)
                mark = mark and tags.key  # it still stands there
        if mark == tags.end != tags.after_call:
            source.pos -= len(mark)
        if mark:
            out.arguments("}" if self._num_arguments else "{}")
        out.end()
        text = "".join(other)
        out.content("" if text.isspace() else text)

    def _read_argument(self, name: str) -> Steps[bool]:
        """Read an argument from after the mark of its key; False if it is none."""
        source, tags = self._source, self._tags
        key = (yield from take_while(source, _NOT_NAME, MAX_NAME)).strip()
        if not key or not (yield from Marks([tags.after_key]).take(source)):
            return False
        if tags.value:
            yield from skip(source)
            if not (yield from Marks([tags.value]).take(source)):
                return False
        self._out.arguments(f"{', ' if self._num_arguments else '{'}{json_string(key)}: ")
        self._num_arguments += 1
        if tags.has_lines and not (
            yield from self._ends((yield from self._after_value.at(source)))
        ):
            yield from take(source, "\n")
        yield from self._read_value(self._kinds_of(name, key))
        source.release()
        return True

    def _read_value(self, kinds: Kinds) -> Steps[None]:
        source, out = self._source, self._out
        if kinds == TEXT:
            out.arguments('"')
            mark = yield from self._find_end(self._emit_text)
            out.arguments('"' if mark else "")
        else:
            pieces: list[str] = []
            mark = yield from self._find_end(pieces.append)
            text = "".join(pieces)
            out.arguments(json_value(text, kinds) if mark else text)
        if mark.endswith(self._tags.after_value):
            source.pos += len(mark)

    def _find_end(self, emit: Emit) -> Steps[str]:
        """The mark that ends the value; what stands before it is emitted as it comes."""
        source = self._source
        while True:
            mark = yield from self._after_value.find(source, emit)
            if not mark or (yield from self._ends(mark)):
                return mark
            source.pos += len(mark)
            emit(mark)

    def _ends(self, mark: str) -> Steps[bool]:
        """Whether this mark of `_after_value`, which stands at ``pos``, ends the value."""
        if mark not in self._unsure:
            return bool(mark)
        source = self._source
        start = source.pos
        if start >= self._decided_to:
            deciding = yield from self._deciding.find(source, _ignore)
            self._is_closed = deciding == self._tags.after_value
            self._decided_to, source.pos = source.pos, start
        return not self._is_closed

    def _kinds_of(self, name: str, key: str) -> Kinds:
        if (name, key) not in self._kinds:
            self._kinds[name, key] = self._tools.kinds(name, key)
        return self._kinds[name, key]

    def _emit_text(self, text: str) -> None:
        self._out.arguments(json_string(text)[1:-1])
        self._source.release()


def _ignore(text: str) -> None:
    """Ignore text that is read again later."""
