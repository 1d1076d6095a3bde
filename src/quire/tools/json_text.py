"""JSON in a model's text: where a value ends, and objects that are calls.

The text of arguments is passed on as the model wrote it, never parsed and printed again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from quire.incremental import Emit, Source, Steps, peek, seek, skip, streamed, take, take_while
from quire.tools.events import CallEvents

MAX_NAME = 256  # characters; a longer one is no name of a tool
_CLOSER = {"{": "}", "[": "]"}
_IN_NESTED = re.compile(r'["{}\[\]<]')
_IN_STRING = {quote: re.compile(rf"[{quote}\\]") for quote in ('"', "'")}
_NOT_SCALAR = re.compile(r"[^-+.\w]")
_SCALAR = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?|true|false|null")
_ARGUMENTS = ("arguments", "parameters")
_LABELS = ("id", "type", "index")
_OF_SCHEMAS = frozenset({"type", "properties"})


def pass_value(source: Source) -> Steps[bool]:
    """Read past a JSON value; False if it breaks off, with ``pos`` where it does."""
    following = yield from peek(source)
    if following == '"':
        return (yield from pass_string(source))
    if following in _CLOSER:
        return (yield from _pass_nested(source))
    return bool((yield from take_while(source, _NOT_SCALAR, MAX_NAME)))


def pass_string(source: Source) -> Steps[bool]:
    """Read past a string in quotes of either kind; False if the text ends before."""
    quote = source.between(source.pos, source.pos + 1)
    source.pos += 1
    while following := (yield from seek(source, _IN_STRING[quote])):
        source.pos += 1
        if following == quote:
            return True
        source.pos += bool((yield from peek(source)))  # what is escaped
    return False


def _pass_nested(source: Source) -> Steps[bool]:
    """Read past an object or array; False at a ``<`` outside of strings, where a mark begins."""
    closers: list[str] = []
    while following := (yield from seek(source, _IN_NESTED)):
        if following == '"':
            if not (yield from pass_string(source)):
                return False
            continue
        if following in _CLOSER:
            closers.append(_CLOSER[following])
        elif following != closers.pop():
            return False
        source.pos += 1
        if not closers:
            return True
    return False


def pass_rest(source: Source, closers: str, emit: Emit) -> Steps[None]:
    """Read and emit the rest of a JSON value that lacks these brackets, as far as it is JSON."""
    open = list(reversed(closers))
    is_behind_value = False
    while open:
        start = source.pos
        following = yield from skip(source)
        is_value = following not in (",", ":", "}", "]")
        if is_value and is_behind_value:
            source.pos = start
            return
        emit(source.between(start, source.pos))
        start = source.pos
        if following == '"':
            yield from streamed(source, pass_string(source), emit)
        elif is_value and following not in _CLOSER:
            scalar = yield from take_while(source, _NOT_SCALAR, MAX_NAME)
            if not _SCALAR.fullmatch(scalar):
                source.pos = start
                return
            emit(scalar)
        else:
            if following in _CLOSER:
                open.append(_CLOSER[following])
            elif following in ("}", "]") and following != open.pop():
                return
            source.pos += 1
            emit(following)
        is_behind_value = following not in (",", ":", *_CLOSER)


def loaded(text: str) -> Any:
    """What a JSON text says; None if it is broken. Strings may hold raw line breaks."""
    try:
        return json.loads(text, strict=False, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def as_json(text: str) -> str | None:
    """The text itself if it is JSON, serialized again if only its line breaks are raw, else
    None."""
    value = loaded(text)
    if value is None:
        return text if text == "null" else None
    try:
        json.loads(text)
    except ValueError:
        return dumped(value)
    return text


def is_lacking(text: str) -> bool:
    """Whether the arguments are empty or null, in quotes or not."""
    value = loaded(text)
    return (value if isinstance(value, str) else text).strip() in ("", "null")


def object_in(text: str) -> str | None:
    """The JSON text of an object that a JSON string holds; None if it holds none."""
    value = loaded(text)
    is_object = isinstance(value, str) and isinstance(loaded(value), dict)
    return value if is_object and is_encodable(value) else None


def dumped(value: Any) -> str | None:
    """The value as JSON; None if JSON cannot represent it."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        return text if is_encodable(text) else json.dumps(value)
    except (ValueError, TypeError, RecursionError):
        return None


def json_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _may_be_schema(value: Any) -> bool:
    """Whether it may describe the parameters of a tool, which may have none."""
    if not isinstance(value, dict):
        return False
    return not value or value.get("type") == "object" or value.keys() >= _OF_SCHEMAS


def is_encodable(text: str) -> bool:
    """Whether it has no lone surrogates, which escapes can make and nobody can encode."""
    return not any("\ud800" <= one <= "\udfff" for one in text)


def is_name(text: str) -> bool:
    """Whether the text can be the name of a tool."""
    return 0 < len(text) <= MAX_NAME and text.isprintable() and text == text.strip()


@dataclass(slots=True)
class _Call:
    """What is known of a call that is being read."""

    names: frozenset[str] | None  # not None: only its keys and its name say that it is a call
    name: str = ""
    id: str | None = None
    held: str | None = None  # arguments that came before the name
    extra: list[str] = field(default_factory=list)  # what else stands in it
    has_begun: bool = False
    is_nested: bool = False  # its name and arguments stand in an object "function" of their own
    read_to: int = 0  # where its last whole field ended
    closers: str | None = None  # brackets that it lacks, where it is JSON and surely no call

    @property
    def is_bare(self) -> bool:
        return self.names is not None

    @property
    def may_lack_arguments(self) -> bool:
        return self.names is None or (bool(self.names) and not self.extra)

    def may_be(self, name: str) -> bool:
        return is_name(name) and (not self.names or name in self.names)

    @property
    def may_have_others(self) -> bool:
        """Whether it may be a call in spite of fields that calls do not have."""
        return not self.is_bare or self.has_begun or bool(self.names and self.name)

    def may_be_given(self, text: str) -> bool:
        """Whether the text can be the arguments of a call without marks: the schema of a tool that
        is only described cannot."""
        if text[:1] in _CLOSER:
            return not (self.extra and _may_be_schema(loaded(text)))
        return object_in(text) is not None

    def label(self, key: str, text: str) -> bool:
        """Whether calls have this field beside name and arguments; keeps an id."""
        value = loaded(text)
        if key == "id":
            if type(value) in (str, int) and is_name(str(value)):
                self.id = str(value)
            return True
        return (key == "type" and value == "function") or (key == "index" and type(value) is int)

    def refuse(self) -> bool:
        """Note that the object is no call; always False."""
        self.closers = ""
        return False

    def begin(self, out: CallEvents) -> None:
        self.has_begun = True
        out.begin(self.name, self.id)


def read_call(
    source: Source, out: CallEvents, *, names: frozenset[str] | None = None
) -> Steps[str | None]:
    """Read an object with a name and arguments; ``out`` shows whether it was a call. For JSON that
    is no call, returns the brackets that are still to come.

    Without marks around it, an object is a call only if it has a name of ``names`` (any, if that is
    empty) and arguments, and no other field than calls have before its name, or before its
    arguments if ``names`` is empty. The arguments may be null, empty or missing in a call with
    marks, and in one of ``names`` with no other fields before them.
    """
    call = _Call(names)
    is_closed = False
    if (yield from take(source, "{")):
        is_closed = yield from _read_fields(source, out, call)
    if is_closed and call.name and not call.has_begun and call.may_lack_arguments:
        call.begin(out)
        out.arguments(call.held or "{}")
    if not call.has_begun:
        return "" if is_closed else call.closers
    out.end()
    rest = "" if is_closed else source.between(call.read_to, source.pos)
    for text in [*call.extra, "" if rest.isspace() else rest]:
        out.content(text)
    return None


def _read_fields(source: Source, out: CallEvents, call: _Call) -> Steps[bool]:
    """Read fields up to the end of the object; False if it is none, or no call."""
    while True:
        start = source.pos
        if (yield from skip(source)) != '"':
            return False
        key = yield from _string(source)
        if (yield from skip(source)) != ":":
            return False
        source.pos += 1
        yield from skip(source)
        if not (yield from _read_field(source, out, call, key, start)):
            if call.closers is not None:
                call.closers += "}"
            return False
        call.read_to = source.pos
        following = yield from skip(source)
        if following not in (",", "}"):
            return False
        source.pos += 1
        if following == "}":
            return True


def _read_field(source: Source, out: CallEvents, call: _Call, key: str, start: int) -> Steps[bool]:
    if key in _ARGUMENTS and not call.has_begun and call.held is None:
        return (yield from _read_arguments(source, out, call))
    if key == "function" and not call.name and not call.is_nested:
        if (yield from take(source, "{")):
            call.is_nested = True
            return (yield from _read_fields(source, out, call))
        key = "name" if (yield from peek(source)) == '"' else key
    if not call.may_have_others and key not in ("name", *_LABELS):
        return call.refuse()
    value_start = source.pos
    if not (yield from pass_value(source)):
        return False
    text = source.between(value_start, source.pos)
    if key == "name" and not call.name:
        value = loaded(text)
        if not isinstance(value, str) or not call.may_be(value):
            return call.refuse()
        call.name = value
        if call.held is not None:
            call.begin(out)
            out.arguments(call.held)
    elif not call.label(key, text):
        call.extra.append(source.between(start, source.pos))
    return True


def _read_arguments(source: Source, out: CallEvents, call: _Call) -> Steps[bool]:
    """Read arguments, streamed if the name is known; a string holds them as JSON text."""
    following = yield from peek(source)
    if call.name and following in _CLOSER and not (call.is_bare and call.extra):
        call.begin(out)
        is_whole = yield from streamed(source, pass_value(source), out.arguments)
        call.read_to = source.pos
        return is_whole
    start = source.pos
    if not (yield from pass_value(source)):
        return False
    text = source.between(start, source.pos)
    value = loaded(text)
    if is_lacking(text) and call.may_lack_arguments:
        text = "{}"
    elif call.is_bare and not call.may_be_given(text):
        return call.refuse()
    elif isinstance(value, str) and is_encodable(value):
        text = value
    call.held = text
    if call.name:
        call.begin(out)
        out.arguments(call.held)
    return True


def _string(source: Source) -> Steps[str]:
    start = source.pos
    yield from pass_string(source)
    value = loaded(source.between(start, source.pos))
    return value if isinstance(value, str) else ""
