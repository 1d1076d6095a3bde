"""Formats of calls as JSON objects with a name and arguments: behind marks, in lists, or bare."""

from __future__ import annotations

from quire.incremental import SPACE, Marks, Source, Steps, peek, skip
from quire.tools.definitions import Tools
from quire.tools.events import EventList
from quire.tools.json_text import read_call
from quire.tools.parser import Grammar, content_with_calls

# Models write a bracket too many before the closing mark, and it means nothing.
_BEFORE_END = SPACE | frozenset("}],;")


def marked(begins: tuple[str, ...], ends: tuple[str, ...] = ()) -> Grammar:
    """Calls behind a mark, one or several of them, with or without a list around."""

    def grammar(source: Source, out: EventList, tools: Tools) -> Steps[None]:
        closing = Marks(ends) if ends else None

        def read(mark: str) -> Steps[None]:
            return read_calls(source, out, closing)

        return content_with_calls(source, out, Marks(begins), read)

    return grammar


def bare(opening: tuple[str, ...]) -> Grammar:
    """Objects that look like calls of the given tools; ``opening`` marks stand before some."""

    def grammar(source: Source, out: EventList, tools: Tools) -> Steps[None]:
        def read(mark: str) -> Steps[None]:
            if mark == "{":
                source.pos -= 1
            return read_calls(source, out, None, names=tools.names)

        return content_with_calls(source, out, Marks(["{", *opening]), read)

    return grammar


def unmarked_list(source: Source, out: EventList, tools: Tools) -> Steps[None]:
    """The whole text is a list of calls, as a grammar has made it; anything else is content."""

    def read(mark: str) -> Steps[None]:
        source.pos -= 1
        return read_calls(source, out, None)

    return content_with_calls(source, out, Marks(["["]), read)


def read_calls(
    source: Source, out: EventList, ends: Marks | None, *, names: frozenset[str] | None = None
) -> Steps[None]:
    """From behind an opening mark to behind the closing one, as far as it fits."""
    num_calls = out.num_calls
    is_list = (yield from skip(source)) == "["
    if is_list:
        source.pos += 1
        yield from skip(source)
    yield from read_call(source, out, names=names)
    while out.num_calls > num_calls:
        num_calls = out.num_calls
        resume = source.pos
        following = yield from skip(source)
        if following in (",", ";"):
            source.pos += 1
            following = yield from skip(source)
        if following != "{":
            source.pos = resume
            yield from _read_end(source, ends, is_list)
            return
        yield from read_call(source, out, names=names)
        if out.num_calls == num_calls:
            out.content(source.between(resume, source.pos))


def _read_end(source: Source, ends: Marks | None, is_list: bool) -> Steps[None]:
    resume = source.pos
    if ends is not None:
        yield from skip(source, _BEFORE_END)
        if (yield from ends.take(source)) or not (yield from peek(source)):
            return
    elif (yield from skip(source)) == "]" and is_list:
        source.pos += 1
        return
    source.pos = resume
