"""What a parser of reasoning is, its events, and the grammars that formats have.

The text of an answer comes out again as reasoning or as content; the marks between them do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from quire.incremental import Emit, Marks, Reading, Source, Steps, peek, skip
from quire.tools.events import Content
from quire.tools.formats.harmony import AFTER_BODY, BETWEEN_BODIES, read_header


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text that the model thought."""

    text: str


ReasoningEvent = Reasoning | Content


class Opening(Enum):
    """Where the answer begins, as the prompt ends."""

    IN_THOUGHT = "in thought"  # the template has opened one
    AFTER_THOUGHT = "after thought"  # the template has closed one, so that there is none
    UNKNOWN = "unknown"


class ReasoningParser(Protocol):
    """Splits one answer of a model."""

    def feed(self, text: str) -> list[ReasoningEvent]:
        """What can be told from the text so far and this, which follows it."""

    def finish(self) -> list[ReasoningEvent]:
        """What is left, now that the text is whole."""


class EventList:
    """Events as a grammar makes them; texts that follow each other become one."""

    def __init__(self) -> None:
        self._events: list[ReasoningEvent] = []

    def reasoning(self, text: str) -> None:
        self._add(Reasoning(text))

    def content(self, text: str) -> None:
        self._add(Content(text))

    def taken(self) -> list[ReasoningEvent]:
        events, self._events = self._events, []
        return events

    def _add(self, event: ReasoningEvent) -> None:
        last = self._events[-1] if self._events else None
        if last is not None and type(last) is type(event):
            self._events[-1] = type(event)(last.text + event.text)
        elif event.text:
            self._events.append(event)


Grammar = Callable[[Source, EventList, Opening], Steps[None]]


class GrammarParser:
    """Reads with a grammar."""

    def __init__(self, grammar: Grammar, opening: Opening) -> None:
        self._out = EventList()
        self._reading = Reading(lambda source: grammar(source, self._out, opening))

    def feed(self, text: str) -> list[ReasoningEvent]:
        self._reading.add(text)
        return self._out.taken()

    def finish(self) -> list[ReasoningEvent]:
        self._reading.end()
        return self._out.taken()


class NoReasoning:
    """Where reasoning is not told apart: all is content."""

    def feed(self, text: str) -> list[ReasoningEvent]:
        return [Content(text)] if text else []

    def finish(self) -> list[ReasoningEvent]:
        return []


def between_tags(begin: tuple[str, ...], end: tuple[str, ...], *, is_usual: bool) -> Grammar:
    """One thought at the beginning; ``is_usual``: it may begin without its tag."""

    def grammar(source: Source, out: EventList, opening: Opening) -> Steps[None]:
        yield from skip(source)
        has_tag = yield from Marks(begin).take(source)
        is_assumed = is_usual and opening is Opening.UNKNOWN
        if not has_tag:
            emit = out.content
            if opening is Opening.IN_THOUGHT or is_assumed:
                emit = out.reasoning
            emit(source.between(0, source.pos))
        source.release()
        if has_tag or is_assumed or opening is Opening.IN_THOUGHT:
            mark = yield from Marks(end).find(source, _released(source, out.reasoning))
            source.pos += len(mark)
        while (yield from peek(source)):
            out.content(source.between(source.pos, source.end))
            source.pos = source.end
            source.release()

    return grammar


def harmony(source: Source, out: EventList, opening: Opening) -> Steps[None]:
    """The analysis is reasoning; messages to functions stay as they are, for a parser of calls."""
    while True:
        start = source.pos
        mark = yield from BETWEEN_BODIES.find(source, _released(source, out.content))
        if not mark:
            return
        start = source.pos
        message = None
        if mark in ("<|start|>", "<|channel|>"):
            message = yield from read_header(source)
        else:
            source.pos += len(mark)
            continue
        header = source.between(start, source.pos)
        if message is None or message.function:
            out.content(header)
        if message is not None and (message.function or _is_thought(message.channel)):
            emit = out.content if message.function else out.reasoning
            mark = yield from AFTER_BODY.find(source, _released(source, emit))
            if mark != "<|start|>":
                source.pos += len(mark)
                out.content(mark if message.function else "")
        source.release()


def _is_thought(channel: str) -> bool:
    return channel == "analysis"


def _released(source: Source, emit: Emit) -> Emit:
    """The source keeps nothing of what was emitted."""

    def emit_and_release(text: str) -> None:
        emit(text)
        source.release()

    return emit_and_release
