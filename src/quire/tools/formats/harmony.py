"""The messages of gpt-oss: each has a channel, and calls are messages to a function.

``<|start|>assistant<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{}<|call|>``
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from quire.incremental import Marks, Source, Steps, skip, take_while
from quire.tools.definitions import Tools
from quire.tools.events import EventList
from quire.tools.json_text import MAX_NAME, is_name

_CHANNEL, _START, _MESSAGE, _TYPE = "<|channel|>", "<|start|>", "<|message|>", "<|constrain|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>")
MARKS = (_START, _CHANNEL, _MESSAGE, _TYPE, *_ENDS)
BETWEEN_BODIES = Marks([_START, _CHANNEL, *_ENDS])
AFTER_BODY = Marks([_START, *_ENDS])
_IN_HEADER = Marks(MARKS)
_LESS = re.compile("<")
_TO = r"(?:\s+to=(\S+?))?"  # stands before the channel or behind it
_HEADER = re.compile(
    rf"(?:<\|start\|>\s*assistant{_TO}\s*)?<\|channel\|>\s*(analysis|commentary|final){_TO}\s*"
    r"(?:(?:<\|constrain\|>)?\s*json\s*)?<\|message\|>"
)
_MAX_PARTS = 6


@dataclass(frozen=True, slots=True)
class Message:
    """What the header of a message says."""

    channel: str
    function: str  # the tool that is called, or nothing


def read_header(source: Source) -> Steps[Message | None]:
    """From a mark of `BETWEEN_BODIES` to behind ``<|message|>``; None if what stands there is no
    header of a message to the user or a function.
    """
    start = source.pos
    for _ in range(_MAX_PARTS):
        mark = yield from _IN_HEADER.take(source)
        if mark == _MESSAGE:
            return _message(source.between(start, source.pos))
        if mark not in (_START, _CHANNEL, _TYPE):
            return None
        yield from take_while(source, _LESS, MAX_NAME)
    return None


def _message(header: str) -> Message | None:
    match = _HEADER.fullmatch(header)
    if match is None:
        return None
    recipient = match[1] or match[3] or ""
    function = recipient.removeprefix("functions.")
    is_call = function != recipient and is_name(function)
    return None if recipient and not is_call else Message(match[2], function)


def harmony(source: Source, out: EventList, tools: Tools) -> Steps[None]:
    """Messages to functions are calls; the bodies of all others are content."""
    while True:
        mark = yield from BETWEEN_BODIES.find(source, out.content)
        if not mark:
            return
        if mark in _ENDS:
            source.pos += len(mark)
            continue
        start = source.pos
        message = yield from read_header(source)
        if message is None:
            out.content(source.between(start, source.pos))
        elif message.function:
            yield from _read_call(source, out, message.function)
        source.release()


def _read_call(source: Source, out: EventList, name: str) -> Steps[None]:
    out.begin(name)
    following = yield from skip(source)
    if not following or (yield from AFTER_BODY.at(source)):
        out.arguments("{}")
    yield from AFTER_BODY.find(source, out.arguments)
    out.end()
