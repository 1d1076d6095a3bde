"""Text that comes in pieces, read as if it were whole.

A grammar is a generator: it reads a `Source` and yields when it needs text that has not come yet.
Its result depends on the text alone and never on where the pieces were cut, so a stream gives the
same result as the whole text. Each grammar reads once from left to right, in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
E = TypeVar("E")
Steps = Generator[None, None, T]
Emit = Callable[[str], None]

SPACE = frozenset(" \t\r\n")


class Source:
    """The text so far. Positions count from its beginning; ``pos`` is what is read next."""

    def __init__(self) -> None:
        self.pos = 0
        self.is_whole = False  # no more text will come
        self._text = ""  # from _offset on
        self._offset = 0
        self._kept_from = 0

    @property
    def end(self) -> int:
        return self._offset + len(self._text)

    def add(self, text: str) -> None:
        self._text = self._text[self._kept_from - self._offset :] + text
        self._offset = self._kept_from

    def release(self) -> None:
        """Drop the text that was read: `between` can no longer return it."""
        self._kept_from = self.pos

    def between(self, start: int, end: int) -> str:
        return self._text[start - self._offset : end - self._offset]

    def has(self, mark: str) -> bool:
        """Whether ``mark`` stands at ``pos``."""
        return self._text.startswith(mark, self.pos - self._offset)

    def search(self, pattern: re.Pattern[str]) -> int:
        """Position of the first match of ``pattern`` from ``pos`` on, else the end so far."""
        match = pattern.search(self._text, self.pos - self._offset)
        return self.end if match is None else self._offset + match.start()


class Marks:
    """Strings that a grammar looks for; of two at one position the longer one counts."""

    def __init__(self, marks: Sequence[str]) -> None:
        self._marks = sorted(set(marks), key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, self._marks)))
        self._first = frozenset(mark[0] for mark in self._marks)
        self._longest = len(self._marks[0])

    def at(self, source: Source) -> Steps[str]:
        """The mark at ``pos``, or an empty string; ``pos`` does not move."""
        while self._may_stand_at(source, source.pos) and not source.is_whole:
            yield
        return next((mark for mark in self._marks if source.has(mark)), "")

    def take(self, source: Source) -> Steps[str]:
        """Read past the mark at ``pos`` and return it, or an empty string."""
        mark = yield from self.at(source)
        source.pos += len(mark)
        return mark

    def find(self, source: Source, emit: Emit) -> Steps[str]:
        """Read up to the next mark and return it unread; emits the text before it as it comes."""
        while True:
            found = source.search(self._any)
            unsure = source.end if source.is_whole else self._first_open(source)
            stop = min(found, unsure)
            if stop > source.pos:
                passed = source.between(source.pos, stop)
                source.pos = stop
                emit(passed)
            if found < unsure or source.is_whole:
                return next((mark for mark in self._marks if source.has(mark)), "")
            yield

    def _first_open(self, source: Source) -> int:
        """The first position where more text may complete a mark, or a longer one."""
        start = max(source.pos, source.end - self._longest + 1)
        places = (at for at in range(start, source.end) if self._may_stand_at(source, at))
        return next(places, source.end)

    def _may_stand_at(self, source: Source, at: int) -> bool:
        """Whether it takes more text to know if a mark, or a longer one, stands at ``at``."""
        tail = source.between(at, at + self._longest)
        if tail and tail[0] not in self._first:
            return False
        return any(len(mark) > len(tail) and mark.startswith(tail) for mark in self._marks)


def peek(source: Source) -> Steps[str]:
    """The next character, or an empty string at the end."""
    while source.pos >= source.end:
        if source.is_whole:
            return ""
        yield
    return source.between(source.pos, source.pos + 1)


def skip(source: Source, characters: frozenset[str] = SPACE) -> Steps[str]:
    """Read past these characters and return the one after them, unread."""
    while (following := (yield from peek(source))) in characters:
        source.pos += 1
    return following


def take(source: Source, character: str) -> Steps[bool]:
    """Read ``character`` if it comes next, and return whether it did."""
    is_next = (yield from peek(source)) == character
    source.pos += is_next
    return is_next


def seek(source: Source, pattern: re.Pattern[str]) -> Steps[str]:
    """Read up to the first match of ``pattern`` and return its first character, unread; an empty
    string at the end."""
    while True:
        source.pos = source.search(pattern)
        if source.pos < source.end:
            return source.between(source.pos, source.pos + 1)
        if source.is_whole:
            return ""
        yield


def take_while(source: Source, other: re.Pattern[str], limit: int) -> Steps[str]:
    """Read and return the text before the first match of ``other``, at most ``limit`` long."""
    start = source.pos
    while source.pos < start + limit and (yield from peek(source)):
        stop = source.search(other)
        source.pos = min(stop, start + limit)
        if stop < source.end:
            break
    return source.between(start, source.pos)


def streamed(source: Source, steps: Steps[T], emit: Emit) -> Steps[T]:
    """Emit what ``steps`` read, as they read it; they must not look back at it."""
    start = source.pos
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            break
        start = _emit(source, start, emit)
        yield
    _emit(source, start, emit)
    return result


def released(source: Source, emit: Emit) -> Emit:
    """``emit`` that also releases the text read so far from ``source``."""

    def emit_and_release(text: str) -> None:
        emit(text)
        source.release()

    return emit_and_release


def _emit(source: Source, start: int, emit: Emit) -> int:
    if source.pos > start:
        emit(source.between(start, source.pos))
        source.release()
    return source.pos


class Reading:
    """One grammar that reads one text."""

    def __init__(self, grammar: Callable[[Source], Steps[None]]) -> None:
        self._source = Source()
        self._steps = grammar(self._source)

    def add(self, text: str) -> None:
        self._source.add(text)
        next(self._steps, None)

    def end(self) -> None:
        """Declare the text whole, at which the grammar must end."""
        self._source.is_whole = True
        assert next(self._steps, self) is self, "a grammar waits for text after the end"


class Events(Generic[E]):
    """What a grammar has found; texts of one kind that follow each other become one event."""

    def __init__(self) -> None:
        self._events: list[E] = []
        self._texts: list[str] = []  # of the event that is still growing
        self._make: Callable[[str], E] | None = None  # makes that event of its text

    def add(self, make: Callable[[str], E], text: str) -> None:
        """More text of the kind that ``make`` makes."""
        if make != self._make:
            self._close()
            self._make = make
        if text:
            self._texts.append(text)

    def put(self, event: E) -> None:
        """An event that does not grow."""
        self._close()
        self._events.append(event)

    def taken(self) -> list[E]:
        """All events since the last call."""
        self._close()
        events, self._events = self._events, []
        return events

    def _close(self) -> None:
        if self._texts:
            assert self._make is not None
            self._events.append(self._make("".join(self._texts)))
            self._texts = []


class EventParser(Generic[E]):
    """Reads one text with a grammar that puts what it finds into ``found``."""

    def __init__(self, found: Events[E], grammar: Callable[[Source], Steps[None]]) -> None:
        self._found = found
        self._reading = Reading(grammar)

    def feed(self, text: str) -> list[E]:
        """Add ``text`` and return the new events that it settles."""
        self._reading.add(text)
        return self._found.taken()

    def finish(self) -> list[E]:
        """The last events, now that the text is whole."""
        self._reading.end()
        return self._found.taken()
