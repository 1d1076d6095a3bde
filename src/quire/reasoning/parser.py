"""Reasoning parsers, their events, and the grammars of the formats.

All text of an answer is emitted as reasoning or as content, except the marks between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from quire.incremental import EventParser, Events, Marks, Source, Steps, peek, released, skip
from quire.tools import CallBegins, Content
from quire.tools.formats.harmony import (
    BETWEEN_BODIES,
    ENDS,
    START,
    pass_call_body,
    read_first_header,
    read_header,
)


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text of the model's reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class Preamble:
    """Text for the user that the model has written before its answer, as a message of its own."""

    text: str


ReasoningEvent = Reasoning | Preamble | Content


class Opening(Enum):
    """Where the answer begins, inside a thought or not, judged by the end of the prompt."""

    IN_THOUGHT = "in thought"  # the template has opened one
    AFTER_THOUGHT = "after thought"  # the template has closed one, so that there is none
    UNKNOWN = "unknown"


class ReasoningParser(Protocol):
    """Splits one answer of a model."""

    def feed(self, text: str) -> list[ReasoningEvent]:
        """The events that are certain after ``text``, the next piece of the answer."""

    def finish(self) -> list[ReasoningEvent]:
        """The remaining events, now that the text is complete."""


class ThoughtEvents(Events[ReasoningEvent]):
    """Collects reasoning, preambles and content."""

    def reasoning(self, text: str) -> None:
        self.add(Reasoning, text)

    def preamble(self, text: str) -> None:
        self.add(Preamble, text)

    def content(self, text: str) -> None:
        self.add(Content, text)


Grammar = Callable[[Source, ThoughtEvents, Opening, CallBegins], Steps[None]]


def grammar_parser(grammar: Grammar, opening: Opening, calls: CallBegins) -> ReasoningParser:
    """A parser that reads an answer by a grammar."""
    out = ThoughtEvents()
    return EventParser(out, lambda source: grammar(source, out, opening, calls))


class NoReasoning:
    """For models without reasoning: all text is content."""

    def feed(self, text: str) -> list[ReasoningEvent]:
        return [Content(text)] if text else []

    def finish(self) -> list[ReasoningEvent]:
        return []


@dataclass(frozen=True, kw_only=True, slots=True)
class ThoughtTags:
    """The tags around a thought, and around the answer after it."""

    begins: tuple[str, ...]  # any of them
    ends: tuple[str, ...]
    answer: tuple[str, str] | None = None  # may stand around the answer, and is no part of it
    is_usual: bool = False  # an answer may begin in a thought without its tag


def between_tags(tags: ThoughtTags) -> Grammar:
    """A grammar for one thought at the beginning; an end tag there ends an empty thought."""

    begins, ends = Marks(tags.begins), Marks(tags.ends)

    def grammar(
        source: Source, out: ThoughtEvents, opening: Opening, calls: CallBegins
    ) -> Steps[None]:
        yield from skip(source)
        is_assumed = tags.is_usual and opening is Opening.UNKNOWN
        is_open = opening is Opening.IN_THOUGHT or is_assumed
        if (yield from begins.take(source)):
            is_open = True
        elif is_open:
            out.reasoning(source.between(0, source.pos))
        elif not (yield from ends.at(source)):
            source.pos = 0
        source.release()
        if is_open:
            yield from _read_thought(source, out, tags.ends, calls)
        has_ended = bool((yield from ends.take(source))) or opening is Opening.AFTER_THOUGHT
        if has_ended and tags.answer is not None:
            yield from _read_wrapped(source, out, tags.answer, calls)
        while (yield from peek(source)):
            out.content(source.between(source.pos, source.end))
            source.pos = source.end
            source.release()

    return grammar


def _read_thought(
    source: Source, out: ThoughtEvents, ends: tuple[str, ...], calls: CallBegins
) -> Steps[None]:
    """Read a thought up to its end or to a call, which are left unread.

    A thought may quote how a call is written. Only what follows distinguishes that from a real call
    in an unclosed thought: the end of the thought. So such a call is held back until an end comes
    or the text is complete. A late call does less harm than one that was only thought of.
    """
    mark = yield from Marks([*ends, *calls.marks]).at(source)  # here a line begins too
    if not mark:
        begins = calls.marks if calls.is_sure else [f"\n{one}" for one in calls.marks]
        mark = yield from Marks([*ends, *begins]).find(source, released(source, out.reasoning))
    if not mark or mark in ends or calls.is_sure:
        return
    held: list[str] = []
    end = yield from Marks(ends).find(source, released(source, held.append))
    emit = out.reasoning if end else out.content
    emit("".join(held))


def _read_wrapped(
    source: Source, out: ThoughtEvents, tags: tuple[str, str], calls: CallBegins
) -> Steps[None]:
    """Read an answer within tags, each of which may have a line of its own; an end tag counts only
    if nothing follows it, or a call."""
    begin, end = tags
    start = source.pos
    yield from skip(source)
    if not (yield from Marks([f"{begin}\n", begin]).take(source)):
        source.pos = start
        return
    ends = Marks([f"\n{end}", end])
    while mark := (yield from ends.find(source, released(source, out.content))):
        start = source.pos
        source.pos += len(mark)
        is_more = bool((yield from skip(source)))
        if is_more and not (calls.marks and (yield from Marks(calls.marks).at(source))):
            out.content(source.between(start, source.pos))


def harmony(source: Source, out: ThoughtEvents, opening: Opening, calls: CallBegins) -> Steps[None]:
    """The analysis is reasoning; messages to functions stay as they are, for a parser of calls."""
    emit = out.content
    is_call = (yield from read_first_header(source)) is not None
    out.content(source.between(0, source.pos))
    source.release()
    if is_call:
        yield from _pass_call(source, out)
    while mark := (yield from BETWEEN_BODIES.find(source, released(source, emit))):
        start = source.pos
        if mark in ENDS:
            source.pos += len(mark)
            out.content(mark if is_call else "")
            emit, is_call = out.content, False
            continue
        message = yield from read_header(source)
        header = source.between(start, source.pos)
        if message is None:
            emit = out.content if mark == START else emit
            emit(header)
            continue
        # After a call without an end mark, the header is what ends it.
        out.content(header if message.function or is_call else "")
        is_call = bool(message.function)
        emit = out.preamble if message.is_preamble else out.content
        if message.is_thought:
            emit = out.reasoning
        if is_call:
            yield from _pass_call(source, out)


def _pass_call(source: Source, out: ThoughtEvents) -> Steps[None]:
    """Emit the body of a message to a function, in which marks may be text, as content."""
    start = source.pos
    yield from skip(source)
    out.content(source.between(start, source.pos))
    source.release()
    yield from pass_call_body(source, released(source, out.content))
