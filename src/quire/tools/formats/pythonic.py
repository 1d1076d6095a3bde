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
            yield from _read_list(source, out, tools.names, is_list, is_sure=is_marked)
            if ends and is_marked:
                resume = source.pos
                yield from skip(source)
                if not (yield from Marks(ends).take(source)):
                    source.pos = resume
            return None

        return content_with_calls(source, out, Marks(["[", "{", *begins]), read)

    return grammar


def _read_list(
    source: Source, out: CallEvents, names: frozenset[str], is_list: bool, *, is_sure: bool
) -> Steps[None]:
    """Read calls in a row, the first of which must be of one of ``names`` unless ``is_sure``. Calls
    of unknown tools, or with arguments that are no literals, are content."""
    num_calls = out.num_calls
    resume = start = source.pos
    is_more = True
    while is_more:
        name = yield from _read_name(source)
        is_tool = name in names if names else name.replace(".", "_").isidentifier()
        if not (is_tool or is_sure):
            return
        is_sure = True
        opened = source.pos
        arguments = (yield from _read_arguments(source)) if is_tool else None
        if arguments is not None:
            out.content(source.between(start, resume))
            out.whole_call(name, arguments)
        else:
            source.pos = opened
            is_more = bool(name) and (yield from _pass_to(source, ")"))
            source.pos += is_more
            if out.num_calls > num_calls:
                out.content(source.between(start, source.pos))
        if out.num_calls > num_calls:
            start = source.pos
            source.release()
        resume = source.pos
        is_more = is_more and (yield from _pass_separator(source, is_list))


def _pass_separator(source: Source, is_list: bool) -> Steps[bool]:
    """Read what separates calls, or ends the list; True if a call may follow."""
    resume = source.pos
    following = yield from skip(source)
    is_more = bool(following) and not is_list and not _NOT_NAME.match(following)
    if following == "," or (is_list and following == "]"):
        source.pos += 1
    elif following and not is_more:
        source.pos = resume
    return is_more or following == ","


def _read_name(source: Source) -> Steps[str]:
    """Read a name and the bracket that opens its call; "" if none follows."""
    yield from skip(source)
    name = yield from take_while(source, _NOT_NAME, MAX_NAME)
    return name if (yield from take(source, "(")) else ""


def _read_arguments(source: Source) -> Steps[str | None]:
    """Read arguments and the closing bracket, as JSON; None if one is not a keyword with a
    literal."""
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
    return "{" + ", ".join(arguments) + "}"


def _read_value(source: Source) -> Steps[str | None]:
    """Read a literal, up to the comma or bracket after it, as JSON; true, false and null are
    literals too."""
    start = source.pos
    if not (yield from _pass_to(source, ",)")):
        return None
    text = source.between(start, source.pos).strip()
    return (
        as_json(text)
        or python_literal(text)
        or python_literal(text.replace("\n", "\\n").replace("\r", "\\r"))
    )


def _pass_to(source: Source, stops: str) -> Steps[bool]:
    """Read up to one of ``stops``, outside of strings and brackets; False if none comes."""
    closers: list[str] = []
    while following := (yield from seek(source, _IN_VALUE)):
        if following in ('"', "'"):
            if not (yield from pass_string(source)):
                return False
            continue
        if following in _CLOSER:
            closers.append(_CLOSER[following])
        elif not closers and following in stops:
            return True
        elif following != "," and (not closers or following != closers.pop()):
            return False
        source.pos += 1
    return False
