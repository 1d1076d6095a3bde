"""Calls written in Python: ``[get_weather(city="Paris"), get_time()]``.

A call is passed on when all of it is read: until then it may turn out to be something else.
"""

from __future__ import annotations

import re

from quire.incremental import Marks, Source, Steps, peek, seek, skip, take, take_while
from quire.tools.definitions import Tools
from quire.tools.events import CallEvents
from quire.tools.json_text import MAX_NAME, as_json, json_string, pass_string
from quire.tools.parser import Grammar, content_with_calls
from quire.tools.values import python_literal

_NOT_NAME = re.compile(r"[^\w.\-]")
_NOT_KEYWORD = re.compile(r"\W")
_IN_VALUE = re.compile(r"""["'()\[\]{},]""")
_CLOSER = {"(": ")", "[": "]", "{": "}"}
_IN_JSON = {"{": frozenset('"'), "[": frozenset('"{-0123456789')}  # what tells it from calls


def pythonic(begins: tuple[str, ...] = (), ends: tuple[str, ...] = ()) -> Grammar:
    """Lists of calls, with or without marks around; between marks the brackets may be missing.
    What stands within JSON is no call.
    """

    def grammar(source: Source, out: CallEvents, tools: Tools) -> Steps[None]:
        def read(mark: str) -> Steps[str | None]:
            if mark in _IN_JSON and (yield from skip(source)) in _IN_JSON[mark]:
                return _CLOSER[mark]
            if mark == "{":
                return None
            is_marked = mark != "["
            is_list = not is_marked
            if is_marked:
                yield from skip(source)
                is_list = yield from take(source, "[")
            yield from _read_list(source, out, tools.names, is_list)
            if ends and is_marked:
                resume = source.pos
                yield from skip(source)
                if not (yield from Marks(ends).take(source)):
                    source.pos = resume
            return None

        return content_with_calls(source, out, Marks(["[", "{", *begins]), read)

    return grammar


def _read_list(
    source: Source, out: CallEvents, names: frozenset[str], is_list: bool
) -> Steps[None]:
    num_calls = out.num_calls
    while True:
        resume = source.pos
        if out.num_calls > num_calls:  # what parts calls, or ends the list
            following = yield from skip(source)
            if following in ("]", ",") and is_list:
                source.pos += 1
            elif following and (is_list or _NOT_NAME.match(following)):
                source.pos = resume
            if following != "," and (is_list or not following or _NOT_NAME.match(following)):
                return
        call = yield from _read_call(source, names)
        if call is None:
            if out.num_calls > num_calls:
                out.content(source.between(resume, source.pos))
            return
        out.whole_call(*call)
        source.release()


def _read_call(source: Source, names: frozenset[str]) -> Steps[tuple[str, str] | None]:
    """Name and arguments; None if it is no call of these tools."""
    yield from skip(source)
    name = yield from take_while(source, _NOT_NAME, MAX_NAME)
    is_known = name in names if names else name.replace(".", "_").isidentifier()
    if not is_known or not (yield from take(source, "(")):
        return None
    arguments: list[str] = []
    while (yield from skip(source)) != ")":
        keyword = yield from take_while(source, _NOT_KEYWORD, MAX_NAME)
        if not keyword.isidentifier() or (yield from skip(source)) != "=":
            return None
        source.pos += 1
        yield from skip(source)
        value = yield from _read_value(source)
        if value is None:
            return None
        arguments.append(f"{json_string(keyword)}: {value}")
        if (yield from skip(source)) == ",":
            source.pos += 1
        elif (yield from peek(source)) != ")":
            return None
    source.pos += 1
    return name, "{" + ", ".join(arguments) + "}"


def _read_value(source: Source) -> Steps[str | None]:
    """A literal up to the comma or bracket behind it, as JSON; names of JSON's are taken too."""
    start = source.pos
    closers: list[str] = []
    while following := (yield from seek(source, _IN_VALUE)):
        if following in ('"', "'"):
            if not (yield from pass_string(source)):
                return None
            continue
        if following in _CLOSER:
            closers.append(_CLOSER[following])
        elif not closers and following in ",)":
            break
        elif following != "," and (not closers or following != closers.pop()):
            return None
        source.pos += 1
    text = source.between(start, source.pos).strip()
    return (
        as_json(text)
        or python_literal(text)
        or python_literal(text.replace("\n", "\\n").replace("\r", "\\r"))
    )
