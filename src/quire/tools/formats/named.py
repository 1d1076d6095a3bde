"""Formats where the name of the tool stands in front and the arguments are JSON by themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass

from quire.incremental import Marks, Source, Steps, peek, skip, streamed, take_while
from quire.tools.definitions import Tools
from quire.tools.events import CallEvents
from quire.tools.formats.marked import read_calls
from quire.tools.json_text import MAX_NAME, is_name, pass_value
from quire.tools.parser import Grammar, content_with_calls

_NOT_NAME = re.compile(r"[\s<{\[|]")
_KIMI_NAME = re.compile(r"(?:functions\.)?(.+?)(:\d+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedCalls:
    """Sections of calls: ``begin[call name separator arguments end call ... ]end``."""

    section_begins: tuple[str, ...]  # any of them
    section_ends: tuple[str, ...]
    call: str
    before_name: tuple[str, ...] = ()  # the kind of the tool, where the format tells it
    separator: str
    after_arguments: tuple[str, ...]  # marks that end a call, each if it is there
    has_ids: bool = False  # the name stands in the model's own id, with a counter behind it


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
    if not form.separator.startswith("\n"):
        yield from skip(source)
    if not is_name(name) or not (yield from Marks([form.separator]).take(source)):
        return
    yield from read_arguments(source, out, name, id)
    for mark in form.after_arguments:
        resume = source.pos
        yield from skip(source)
        if not (yield from Marks([mark]).take(source)) and (yield from peek(source)):
            source.pos = resume


def read_arguments(source: Source, out: CallEvents, name: str, id: str | None) -> Steps[None]:
    """The call, with arguments that may be missing."""
    yield from skip(source)
    out.begin(name, id)
    if (yield from peek(source)) == "{":
        yield from streamed(source, pass_value(source), out.arguments)
    else:
        out.arguments("{}")
    out.end()


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
        if is_name(name) and (has_mark or following == "{"):
            yield from read_arguments(source, out, name, id if id and is_name(id) else None)

    return content_with_calls(source, out, Marks(["[TOOL_CALLS]"]), read)
