"""Formats in which the name of the tool comes first, and then its arguments as JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass

from quire.incremental import Marks, Source, Steps, peek, released, skip, streamed, take_while
from quire.tools.definitions import Tools
from quire.tools.events import CallEvents
from quire.tools.formats.marked import BEFORE_END, read_calls
from quire.tools.json_text import (
    MAX_NAME,
    is_lacking,
    is_name,
    object_in,
    pass_string,
    pass_value,
)
from quire.tools.parser import Grammar, content_with_calls

_NOT_NAME = re.compile(r"[\s<{\[|`]")
_KIMI_NAME = re.compile(r"(?:functions\.)?(.+?)(:\d+)?")
_MISTRAL_CALL = Marks(["[TOOL_CALLS]"])
_FENCE = "```"
_FENCE_BEGINS, _FENCE_END = Marks([f"{_FENCE}json", _FENCE]), Marks([_FENCE])


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedCalls:
    """Sections of calls: ``begin[call name separator arguments call_end call ... ]end``."""

    section_begins: tuple[str, ...]  # any of them
    section_ends: tuple[str, ...]
    call: str
    before_name: tuple[str, ...] = ()  # the kind of the tool, where the format tells it
    separator: str
    call_end: str  # may be missing
    has_ids: bool = False  # the name stands in the model's own id, with a counter behind it

    @property
    def ends(self) -> Marks:
        """The marks that end arguments, even broken ones."""
        return Marks([self.call_end, self.call, *self.section_begins, *self.section_ends])


def named_calls(form: NamedCalls) -> Grammar:
    """Calls that stand in sections; a call without its section is read too."""

    def grammar(source: Source, out: CallEvents, tools: Tools) -> Steps[None]:
        def read(mark: str) -> Steps[None]:
            if mark == form.call:
                source.pos -= len(mark)
            return _read_section(source, out, form)

        return content_with_calls(source, out, Marks([*form.section_begins, form.call]), read)

    return grammar


def _read_section(source: Source, out: CallEvents, form: NamedCalls) -> Steps[None]:
    resume = source.pos
    while True:
        yield from skip(source)
        mark = yield from Marks([form.call, *form.section_ends]).take(source)
        if mark != form.call:
            if not mark and (yield from peek(source)):
                source.pos = resume
            return
        num_calls = out.num_calls
        yield from _read_named(source, out, form)
        if out.num_calls == num_calls:
            if num_calls:
                out.content(source.between(resume, source.pos))
            return
        resume = source.pos


def _read_named(source: Source, out: CallEvents, form: NamedCalls) -> Steps[None]:
    for mark in form.before_name:
        if not (yield from Marks([mark]).take(source)):
            return
    yield from skip(source)
    name = yield from take_while(source, _NOT_NAME, MAX_NAME)
    id = None
    if form.has_ids and (match := _KIMI_NAME.fullmatch(name)):
        id, name = name if match[2] else None, match[1]
    if not is_name(name) or not (yield from _read_separator(source, form.separator)):
        return
    out.begin(name, id)
    yield from _read_arguments(source, out, form.ends)
    out.end()
    resume = source.pos
    yield from skip(source, BEFORE_END)
    if not (yield from Marks([form.call_end]).take(source)):
        source.pos = resume


def _read_separator(source: Source, separator: str) -> Steps[bool]:
    """Read past the separator; False if it is missing. A fence needs no line break before it."""
    if separator != "\n":
        yield from skip(source)
    if (yield from Marks([separator]).take(source)):
        return True
    return separator == "\n" and bool((yield from _FENCE_BEGINS.at(source)))


def _read_arguments(source: Source, out: CallEvents, ends: Marks) -> Steps[None]:
    """Read an object, with or without a fence, or else anything up to the next of ``ends``."""
    yield from skip(source)
    is_fenced = bool((yield from _FENCE_BEGINS.take(source)))
    following = yield from skip(source)
    is_whole = False
    if (yield from ends.at(source)):
        out.arguments("{}")
    elif following in ("{", "["):
        is_whole = yield from streamed(source, pass_value(source), out.arguments)
        if not is_whole:
            out.arguments((yield from _read_to(source, ends, is_fenced)))
    else:
        held = yield from _read_object_in_string(source)
        is_whole = held is not None
        if held is None:
            held = yield from _read_to(source, ends, is_fenced)
        out.arguments("{}" if is_lacking(held) else held)
    if is_whole and is_fenced:
        resume = source.pos
        yield from skip(source)
        if not (yield from _FENCE_END.take(source)):
            source.pos = resume


def _read_object_in_string(source: Source) -> Steps[str | None]:
    """Read an object that is JSON text in quotes; None for anything else, which is left unread."""
    start = source.pos
    if (yield from peek(source)) == '"' and (yield from pass_string(source)):
        held = object_in(source.between(start, source.pos))
        if held is not None:
            return held
    source.pos = start
    return None


def _read_to(source: Source, ends: Marks, is_fenced: bool) -> Steps[str]:
    """Read up to the next of ``ends``, without the end of a fence."""
    pieces: list[str] = []
    yield from ends.find(source, released(source, pieces.append))
    text = "".join(pieces).rstrip()
    return text.removesuffix(_FENCE).rstrip() if is_fenced else text


def mistral(source: Source, out: CallEvents, tools: Tools) -> Steps[None]:
    """``[TOOL_CALLS]`` and a list, or a name and its arguments with the mark before each call."""

    def read(mark: str) -> Steps[None]:
        if (yield from skip(source)) in ("[", "{"):
            yield from read_calls(source, out, None)
            return
        name = yield from take_while(source, _NOT_NAME, MAX_NAME)
        yield from skip(source)
        id = None
        if (yield from Marks(["[CALL_ID]"]).take(source)):
            yield from skip(source)
            id = yield from take_while(source, _NOT_NAME, MAX_NAME)
            yield from skip(source)
        has_mark = yield from Marks(["[ARGS]"]).take(source)
        following = yield from skip(source)
        is_fenced = bool((yield from _FENCE_BEGINS.at(source)))
        if is_name(name) and (has_mark or is_fenced or following == "{"):
            out.begin(name, id if id and is_name(id) else None)
            yield from _read_arguments(source, out, _MISTRAL_CALL)
            out.end()

    return content_with_calls(source, out, _MISTRAL_CALL, read)
