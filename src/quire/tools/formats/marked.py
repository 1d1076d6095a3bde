"""Formats of calls as JSON objects with a name and arguments: behind marks, in lists, or bare."""

from __future__ import annotations

from quire.incremental import SPACE, Marks, Source, Steps, peek, skip
from quire.tools.definitions import Tools
from quire.tools.events import CallEvents
from quire.tools.json_text import read_call
from quire.tools.parser import Grammar, content_with_calls

# Models write a bracket too many before the closing mark, and it means nothing.
_BEFORE_END = SPACE | frozenset("}],;")


def marked(
    begins: tuple[str, ...], ends: tuple[str, ...] = (), *, may_lack_mark: bool = False
) -> Grammar:
    """Calls behind a mark, one or several of them, with or without a list around.

    ``may_lack_mark``: so is a list without a mark that begins the answer and calls given tools.
    """

    def grammar(source: Source, out: CallEvents, tools: Tools) -> Steps[None]:
        closing = Marks(ends) if ends else None

        def read(mark: str) -> Steps[None]:
            yield from read_calls(source, out, closing)

        if may_lack_mark:
            yield from _read_first_list(source, out, closing, tools.names)
        yield from content_with_calls(source, out, Marks(begins), read)

    return grammar


def bare(opening: tuple[str, ...]) -> Grammar:
    """Objects that look like calls of the given tools, and lists of them; ``opening`` marks stand
    before some. What stands within other JSON is no call.
    """

    def grammar(source: Source, out: CallEvents, tools: Tools) -> Steps[None]:
        def read(mark: str) -> Steps[str | None]:
            if mark in ("{", "["):
                source.pos -= 1
            return read_calls(source, out, None, names=tools.names)

        return content_with_calls(source, out, Marks(["{", "[", *opening]), read)

    return grammar


def _read_first_list(
    source: Source, out: CallEvents, ends: Marks | None, names: frozenset[str]
) -> Steps[None]:
    """A list without a mark that begins the answer; anything else there is left."""
    if (yield from skip(source)) == "[":
        yield from read_calls(source, out, ends, names=names)
    if not out.num_calls:
        source.pos = 0


def unmarked_list(source: Source, out: CallEvents, tools: Tools) -> Steps[None]:
    """The whole text is a list of calls, as a grammar has made it; anything else is content."""

    def read(mark: str) -> Steps[None]:
        source.pos -= 1
        yield from read_calls(source, out, None)

    return content_with_calls(source, out, Marks(["["]), read)


def read_calls(
    source: Source, out: CallEvents, ends: Marks | None, *, names: frozenset[str] | None = None
) -> Steps[str | None]:
    """From behind an opening mark to behind the closing one, as far as it fits. Where that is JSON
    that is no call, the brackets are given that are still to come.
    """
    num_calls = out.num_calls
    following = yield from skip(source)
    is_list = following == "["
    if is_list:
        source.pos += 1
        following = yield from skip(source)
    closer = "]" if is_list else ""
    if following != "{":
        return closer
    rest = yield from read_call(source, out, names=names)
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
            return None
        rest = yield from read_call(source, out, names=names)
        if out.num_calls == num_calls:
            out.content(source.between(resume, source.pos))
    return None if rest is None else rest + closer


def _read_end(source: Source, ends: Marks | None, is_list: bool) -> Steps[None]:
    resume = source.pos
    if ends is not None:
        yield from skip(source, _BEFORE_END)
        if (yield from ends.take(source)) or not (is_list or (yield from peek(source))):
            return
        source.pos = resume
    if is_list and (yield from skip(source)) == "]":
        source.pos += 1
        return
    source.pos = resume
