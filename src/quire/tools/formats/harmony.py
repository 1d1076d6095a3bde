"""The messages of gpt-oss: each has a channel, and calls are messages to a function.

``<|start|>assistant<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{}<|call|>``
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from quire.incremental import Emit, Marks, Source, Steps, peek, released, skip, take_while
from quire.tools.definitions import Tools
from quire.tools.events import CallEvents
from quire.tools.json_text import MAX_NAME, is_name, loaded
from quire.tools.parser import Grammar

START, _CHANNEL, _MESSAGE, _TYPE = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")
MARKS = (START, _CHANNEL, _MESSAGE, _TYPE, *ENDS)
_BEHIND_BODY = (START, _CHANNEL, *ENDS)
BETWEEN_BODIES = Marks(_BEHIND_BODY)
_QUOTES = ('"', '\\"', "\\\\")
_IN_STRING = Marks([*_QUOTES, *_BEHIND_BODY])
_IN_JSON = Marks(['"', *_BEHIND_BODY])
_ENDS = Marks(ENDS)
_IN_HEADER = Marks(MARKS)
_ROLE = f"{START}assistant"
_RECIPIENT = Marks(["to="])
_LESS = re.compile("<")
_TO = r"(?:\s+to=([^\s<]+))?"  # stands before the channel or behind it
# A channel without a message may precede the channel. After the recipient models repeat the
# channel; then comes the type of the body.
_HEADER = re.compile(
    rf"(?:<\|start\|>\s*assistant{_TO}\s*)?"
    r"(?:<\|channel\|>\s*commentary(?:\s+to=assistant)?\s*(?=<\|channel\|>))?"
    rf"<\|channel\|>\s*(analysis|commentary|final){_TO}\s*"
    r"(<\|channel\|>\s*[a-z]+\b\s*)?(?:(?:<\|constrain\|>\s*|\b)[a-z_]+\s*)?<\|message\|>"
)
_MAX_PARTS = 6


@dataclass(frozen=True, slots=True)
class Message:
    """What the header of a message says."""

    channel: str
    function: str  # the tool that is called, or nothing

    @property
    def is_thought(self) -> bool:
        return self.channel == "analysis" and not self.function

    @property
    def is_preamble(self) -> bool:
        return self.channel == "commentary" and not self.function


def read_header(source: Source) -> Steps[Message | None]:
    """Read a header, from a mark of `BETWEEN_BODIES` to after ``<|message|>``; None if it is no
    header of a message to the user or a function."""
    return (yield from _read_parts(source, source.pos))


def read_first_header(source: Source) -> Steps[Message | None]:
    """Read, at the beginning of an answer, the rest of a header whose role the prompt has written.
    Only a recipient follows a role, so anything else is left unread."""
    yield from skip(source)
    if source.pos == 0 or not (yield from _RECIPIENT.at(source)):
        source.pos = 0
        return None
    yield from take_while(source, _LESS, MAX_NAME)
    return (yield from _read_parts(source, 0, before=_ROLE))


def _read_parts(source: Source, start: int, *, before: str = "") -> Steps[Message | None]:
    for _ in range(_MAX_PARTS):
        mark = yield from _IN_HEADER.at(source)
        if not mark or mark in ENDS or (mark == START and source.pos > start):
            return None
        source.pos += len(mark)
        if mark == _MESSAGE:
            return _message(before + source.between(start, source.pos))
        yield from take_while(source, _LESS, MAX_NAME)
    return None


def _message(header: str) -> Message | None:
    match = _HEADER.fullmatch(header)
    if match is None:
        return None
    recipient = match[1] or match[3] or ""
    function = recipient.removeprefix("functions.")
    is_call = function != recipient and is_name(function)
    is_odd = bool(recipient or match[4]) and not is_call
    return None if is_odd else Message(match[2], function)


def harmony(source: Source, out: CallEvents, tools: Tools) -> Steps[None]:
    """Messages to functions are calls; the bodies of all others are content."""
    message = yield from read_first_header(source)
    yield from _read_message(source, out, 0, message)
    yield from _read_messages(source, out)


def _read_messages(source: Source, out: CallEvents) -> Steps[None]:
    while mark := (yield from BETWEEN_BODIES.find(source, released(source, out.content))):
        start = source.pos
        if mark in ENDS:
            source.pos += len(mark)
            continue
        message = yield from read_header(source)
        yield from _read_message(source, out, start, message)


def harmony_or(forced: Grammar) -> Grammar:
    """A grammar for outputs that ``forced`` reads, which the model's own calls may precede.

    Messages to the tools' functions are calls. If there are any, the forced text, which would only
    repeat them, is not read as calls. Calls with broken JSON before the first whole one are told
    only if there is no other.
    """

    def grammar(source: Source, out: CallEvents, tools: Tools) -> Steps[None]:
        broken: list[tuple[str, str]] = []
        message = yield from read_first_header(source)
        if message is None:
            message = yield from _read_next_header(source)
        while message is not None:
            if message.function:
                arguments = yield from _whole_body(source)
                is_known = message.function in tools.names
                if is_known and (out.num_calls or loaded(arguments) is not None):
                    out.whole_call(message.function, arguments)
                elif is_known:
                    broken.append((message.function, arguments))
            message = yield from _read_next_header(source)
        source.release()
        yield from _read_messages(source, out) if out.num_calls else forced(source, out, tools)
        for name, arguments in [] if out.num_calls else broken:
            out.whole_call(name, arguments)

    return grammar


def _whole_body(source: Source) -> Steps[str]:
    """Read the arguments of a call, all at once."""
    body: list[str] = []
    yield from skip(source)
    yield from pass_call_body(source, released(source, body.append))
    return "".join(body) or "{}"


def _read_next_header(source: Source) -> Steps[Message | None]:
    """Read the next header, after white space and end marks; None if there is none, which leaves
    the text unread."""
    yield from skip(source)
    while (yield from _ENDS.take(source)):
        yield from skip(source)
    start = source.pos
    message = None
    if (yield from BETWEEN_BODIES.at(source)):
        message = yield from read_header(source)
    if message is None:
        source.pos = start
    return message


def _read_message(
    source: Source, out: CallEvents, start: int, message: Message | None
) -> Steps[None]:
    """Read what follows a header; if that was none, the text from ``start`` on is content."""
    if message is None:
        out.content(source.between(start, source.pos))
    elif message.function:
        yield from _read_call(source, out, message.function)
    source.release()


def _read_call(source: Source, out: CallEvents, name: str) -> Steps[None]:
    """Read the body of a call."""
    out.begin(name)
    yield from skip(source)
    start = source.pos
    yield from pass_call_body(source, released(source, out.arguments))
    if source.pos == start:
        out.arguments("{}")
    out.end()


def pass_call_body(source: Source, emit: Emit) -> Steps[None]:
    """Emit the body of a call, up to the mark that ends it, or to the next header if no mark
    does."""
    find = _find_end if (yield from peek(source)) == "{" else BETWEEN_BODIES.find
    while (yield from find(source, emit)) == _CHANNEL:
        start = source.pos
        is_header = (yield from read_header(source)) is not None
        if is_header:
            source.pos = start
            return
        emit(source.between(start, source.pos))


def _find_end(source: Source, emit: Emit) -> Steps[str]:
    """Find the mark that ends a body of JSON; marks in strings that are closed after them are
    text."""
    in_string = False
    closed_to = 0
    while True:
        mark = yield from (_IN_STRING if in_string else _IN_JSON).find(source, emit)
        if mark == '"':
            in_string = not in_string
        elif mark in _BEHIND_BODY:
            if in_string and source.pos >= closed_to:
                closed_to = yield from _end_of_string(source)
            if not in_string or source.pos >= closed_to:
                return mark
        elif not mark:
            return ""
        source.pos += len(mark)
        emit(mark)


def _end_of_string(source: Source) -> Steps[int]:
    """The end of the string that is open at ``pos``; 0 if it is not closed as strings in JSON
    are."""
    start = source.pos
    while (quote := (yield from Marks(_QUOTES).find(source, _ignore))) not in ("", '"'):
        source.pos += len(quote)
    end = source.pos
    source.pos += len(quote)
    is_closed = quote and (yield from skip(source)) in (",", ":", "}", "]")
    source.pos = start
    return end if is_closed else 0


def _ignore(text: str) -> None:
    """Ignore text that is read again later."""
