"""The protocol of parsers of tool calls, and the parser that all built-in formats share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from quire.incremental import EventParser, Marks, Source, Steps, released, skip
from quire.tools.definitions import Tools
from quire.tools.events import CallEvents, Content, Event
from quire.tools.json_text import pass_rest

Grammar = Callable[[Source, CallEvents, Tools], Steps[None]]
# From the trigger that was found to None, or to the brackets still to come in JSON that is no call.
ReadCalls = Callable[[str], Steps[str | None]]


class ToolParser(Protocol):
    """Reads one answer of a model. All text is emitted, as content or in calls; only in calls if
    they are forced."""

    def feed(self, text: str) -> list[Event]:
        """The events that are certain after ``text``, the next piece of the answer."""

    def finish(self) -> list[Event]:
        """The remaining events, now that the text is complete."""


def grammar_parser(grammar: Grammar, tools: Tools) -> ToolParser:
    """A parser that reads an answer by a grammar."""
    out = CallEvents()
    return EventParser(out, lambda source: grammar(source, out, tools))


class ContentOnly:
    """For answers without tool calls: all text is content."""

    def feed(self, text: str) -> list[Event]:
        return [Content(text)] if text else []

    def finish(self) -> list[Event]:
        return []


def content_with_calls(
    source: Source, out: CallEvents, triggers: Marks, read_calls: ReadCalls
) -> Steps[None]:
    """Emit content up to each trigger, where ``read_calls`` tries to read calls. What it read is
    content too if there was no call, and so is the rest of JSON that is no call, whatever it
    contains. White space around calls is dropped, except after other content."""
    in_text = False  # content stands directly before
    while True:
        start = source.pos
        if in_text:
            mark = yield from triggers.find(source, released(source, out.content))
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
        closers = yield from read_calls(mark)
        in_text = out.num_calls == num_calls
        if in_text:
            out.content(source.between(start, source.pos))
        source.release()
        if closers:
            in_text = True
            yield from pass_rest(source, closers, released(source, out.content))
