"""What a parser of tool calls is, and the one that all formats of ours share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from quire.incremental import Marks, Reading, Source, Steps, skip
from quire.tools.definitions import Tools
from quire.tools.events import Event, EventList

Grammar = Callable[[Source, EventList, Tools], Steps[None]]
ReadCalls = Callable[[str], Steps[None]]


class ToolParser(Protocol):
    """Reads one answer of a model. All text comes out again: as content, or in calls."""

    def feed(self, text: str) -> list[Event]:
        """What can be told from the text so far and this, which follows it."""

    def finish(self) -> list[Event]:
        """What is left, now that the text is whole."""


class GrammarParser:
    """Reads with a grammar."""

    def __init__(self, grammar: Grammar, tools: Tools) -> None:
        self._out = EventList()
        self._reading = Reading(lambda source: grammar(source, self._out, tools))

    def feed(self, text: str) -> list[Event]:
        self._reading.add(text)
        return self._out.taken()

    def finish(self) -> list[Event]:
        self._reading.end()
        return self._out.taken()


class ContentOnly:
    """Where no tools are to be called: all is content."""

    def __init__(self) -> None:
        self._out = EventList()

    def feed(self, text: str) -> list[Event]:
        self._out.content(text)
        return self._out.taken()

    def finish(self) -> list[Event]:
        return []


def content_with_calls(
    source: Source, out: EventList, triggers: Marks, read_calls: ReadCalls
) -> Steps[None]:
    """Content up to each trigger, where ``read_calls`` tries; what it read is content too, if no
    call came out. White space around calls is no content, except behind other content.
    """
    in_text = False  # content stands directly before
    while True:
        start = source.pos
        if in_text:
            mark = yield from triggers.find(source, out.content)
            start = source.pos
        else:
            following = yield from skip(source)
            mark = yield from triggers.at(source)
            if following and not mark:
                in_text = True
        if not mark:
            if in_text or not out.num_calls:
                out.content(source.between(start, source.pos))
            if source.is_whole and source.pos == source.end:
                return
            source.release()
            continue
        num_calls = out.num_calls
        source.pos += len(mark)
        yield from read_calls(mark)
        in_text = out.num_calls == num_calls
        if in_text:
            out.content(source.between(start, source.pos))
        source.release()
