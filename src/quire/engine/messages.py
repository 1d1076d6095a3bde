"""The messages between front end and engine core, and how they are encoded.

Commands go to the core one at a time; deltas come back one message per step; an answer follows each
question. Inside one process the objects themselves are passed, between processes their bytes. Knows
nothing about sockets.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
import numpy as np

from quire import errors
from quire.config import EngineConfig
from quire.request import EngineRequest
from quire.step_output import CompletionDelta, EngineFacts, EngineStats

if TYPE_CHECKING:
    from quire.engine.core import EngineCore

T = TypeVar("T")


# Tagged unions need msgspec's own classes; everything inside them is a plain dataclass, but for the
# deltas, of which there are very many.
class Start(msgspec.Struct, tag=True, frozen=True):
    """The first message to a new core: what to build, by "module:function" and its argument."""

    build: str
    config: EngineConfig
    log_level: int  # of the front end, to be the core's too


class AddRequest(msgspec.Struct, tag=True, frozen=True):
    request: EngineRequest


class Abort(msgspec.Struct, tag=True, frozen=True):
    """Abort requests; with ``keeps_tokens`` the core still sends their final deltas, with the
    tokens not sent yet."""

    request_ids: list[str]
    keeps_tokens: bool = False


class Finish(msgspec.Struct, tag=True, frozen=True):
    """The front end has seen the end of one completion, such as a stop string."""

    request_id: str
    index: int


class Ask(msgspec.Struct, tag=True, frozen=True):
    query: str
    client: str = ""  # who asks, where several front ends share the core
    serial: int = 0  # repeated in the answer, as an earlier asker may have left


class Stop(msgspec.Struct, tag=True, frozen=True):
    pass


class Attach(msgspec.Struct, tag=True, frozen=True):
    """Another front end joins. Ids of its requests begin with its name (see `attached.py`)."""

    client: str


class Detach(msgspec.Struct, tag=True, frozen=True):
    """An attached front end has left; its requests are aborted."""

    client: str


Command = Start | AddRequest | Abort | Finish | Ask | Stop | Attach | Detach


@dataclass(frozen=True, slots=True)
class Query(Generic[T]):
    """A question to the core that has one answer."""

    name: str
    answer_type: type[T]
    answer: Callable[[EngineCore], T]


STATS = Query("stats", EngineStats, lambda core: core.stats())
BLOCK_MAP = Query("block_map", bytes, lambda core: core.block_map())
RESET_PREFIX_CACHE = Query("reset_prefix_cache", bool, lambda core: core.reset_prefix_cache())
QUERIES: dict[str, Query[Any]] = {q.name: q for q in (STATS, BLOCK_MAP, RESET_PREFIX_CACHE)}


class Loading(msgspec.Struct, tag=True, frozen=True):
    """The phase of its start that the core has begun."""

    phase: str


class Started(msgspec.Struct, tag=True, frozen=True):
    facts: EngineFacts


class Deltas(msgspec.Struct, tag=True, frozen=True):
    deltas: list[CompletionDelta]


class Answer(msgspec.Struct, tag=True, frozen=True):
    value: Any  # of the query's answer_type
    serial: int = 0  # the question's


class Failed(msgspec.Struct, tag=True, frozen=True):
    """An exception of the core, as text."""

    type_name: str
    message: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        text = "".join(traceback.format_exception(error))
        return cls(type_name=type(error).__name__, message=str(error), traceback=text)

    @property
    def last_line(self) -> str:
        return f"{self.type_name}: {self.message}"

    def to_exception(self) -> Exception:
        """An exception of the same type, if that is one of Python's or Quire's, else a
        `RuntimeError`; its cause is the core's traceback."""
        known = {**vars(builtins), **vars(errors)}.get(self.type_name)
        if not (isinstance(known, type) and issubclass(known, Exception)):
            known, message = RuntimeError, self.last_line
        else:
            message = self.message
        try:
            error = known(message)
        except TypeError:  # types that need more than a message, such as UnicodeDecodeError
            error = RuntimeError(self.last_line)
        error.__cause__ = CoreTraceback(self.traceback)
        return error


class CoreTraceback(Exception):
    """Carries the text of a traceback from another process, to be printed as a cause."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


Reply = Loading | Started | Deltas | Answer | Failed


def with_client(client: str, request_id: str) -> str:
    """The id of an attached front end's request, as the core knows it."""
    return f"{client}|{request_id}"


def client_of(request_id: str) -> str:
    """The front end's name in an id that `with_client` made."""
    return request_id.partition("|")[0]


def encode(message: Command | Reply) -> bytes:
    return _ENCODER.encode(message)


def decode_command(data: bytes) -> Command:
    return _COMMANDS.decode(data)


def decode_reply(data: bytes) -> Reply:
    return _REPLIES.decode(data)


def answer_value(query: Query[T], answer: Answer) -> T:
    """The answer as the type that the query promises, after a trip through bytes."""
    return msgspec.convert(answer.value, query.answer_type, dec_hook=_from_plain)


def _to_plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, np.generic):  # a number that a user took out of an array
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be sent to another process: {value!r}")


def _from_plain(kind: type, value: Any) -> Any:
    if kind is np.ndarray:
        dtype, shape, data = value
        return np.frombuffer(data, dtype=dtype).reshape(shape)
    if kind is Path:
        return Path(value)
    raise TypeError(f"no way back from bytes to {kind}")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_to_plain)
_COMMANDS = msgspec.msgpack.Decoder(Command, dec_hook=_from_plain)
_REPLIES = msgspec.msgpack.Decoder(Reply, dec_hook=_from_plain)
