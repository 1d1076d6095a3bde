"""Formats of calls as JSON objects with a name and arguments: behind marks, in lists, or bare."""

from __future__ import annotations

from quire.incremental import SPACE, Marks, Source, Steps, peek, skip
from quire.tools.definitions import Tools
from quire.tools.events import CallEvents
from quire.tools.json_text import read_call
from quire.tools.parser import Grammar, content_with_calls

# Ignored before the closing mark: models write a bracket too many.
BEFORE_END = SPACE | frozenset("}],;")


def marked(
    begins: tuple[str, ...], ends: tuple[str, ...] = (), *, may_lack_mark: bool = False
) -> Grammar:
    """A grammar for one or several calls after a mark, in a list or not.

    ``may_lack_mark``: an answer may also begin with a list of calls of the given tools without a
    mark.
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
    """A grammar for objects that look like calls of the given tools, and lists of them; after an
    ``opening`` mark they may name any tool. Objects within other JSON are no calls."""

    def grammar(source: Source, out: CallEvents, tools: Tools) -> Steps[None]:
        def read(mark: str) -> Steps[str | None]:
            if mark in opening:
                return read_calls(source, out, None)
            source.pos -= 1
            return read_calls(source, out, None, names=tools.names)

        return content_with_calls(source, out, Marks(["{", "[", *opening]), read)

    return grammar


def _read_first_list(
    source: Source, out: CallEvents, ends: Marks | None, names: frozenset[str]
) -> Steps[None]:
    """Read a list without a mark at the beginning of the answer; anything else is left unread."""
    if (yield from skip(source)) == "[":
        yield from read_calls(source, out, ends, names=names)
    if not out.num_calls:
        source.pos = 0


def unmarked_list(source: Source, out: CallEvents, tools: Tools) -> Steps[None]:
    """Read the whole text as a list of calls, as a grammar has forced it; anything else is
    content."""

    def read(mark: str) -> Steps[None]:
        source.pos -= 1
        yield from read_calls(source, out, None)

    return content_with_calls(source, out, Marks(["["]), read)


def read_calls(
    source: Source, out: CallEvents, ends: Marks | None, *, names: frozenset[str] | None = None
) -> Steps[str | None]:
    """Read calls from after an opening mark to after the closing one, as far as the text fits. For
    JSON that is no call, returns the brackets that are still to come."""
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
        yield from skip(source, BEFORE_END)
        if (yield from ends.take(source)) or not (is_list or (yield from peek(source))):
            return
        source.pos = resume
    if is_list and (yield from skip(source)) == "]":
        source.pos += 1
        return
    source.pos = resume
