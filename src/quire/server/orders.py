"""What the supervisor of several HTTP processes tells one of them, through its standard input.

Knows the messages and their frames, not what is done about them.
"""

from __future__ import annotations

import os
import struct
from typing import IO

import msgspec

from quire.config import EngineConfig
from quire.engine.messages import Start, decode_command, encode
from quire.server.args import ServerArgs
from quire.server.peers import Place

# Exit status of an HTTP process that cannot start, nor could a replacement; it has said why.
CANNOT_START = os.EX_CONFIG


class Boot(msgspec.Struct, tag=True, frozen=True):
    """The first order: how to serve, and at which inherited socket."""

    args: ServerArgs
    place: Place
    listener_fd: int
    log_level: int
    listens_at_once: bool


class StartPhase(msgspec.Struct, tag=True, frozen=True):
    """The engine's start has come to this phase."""

    name: str


class Up(msgspec.Struct, tag=True, frozen=True):
    """A core is ready: attach to it under this client name."""

    folder: str
    client: str  # a number, used by no other process before or after
    start: bytes  # of `config_bytes`


class Down(msgspec.Struct, tag=True, frozen=True):
    """The core has died; another one may come."""

    cause: str


class Fail(msgspec.Struct, tag=True, frozen=True):
    """There will be no core any more: end."""

    cause: str


class StopServing(msgspec.Struct, tag=True, frozen=True):
    """Drain and exit; a second one aborts running requests."""


Order = Boot | StartPhase | Up | Down | Fail | StopServing

_LENGTH = struct.Struct("<I")
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Order)


def write_order(pipe: IO[bytes], order: Order) -> None:
    data = _ENCODER.encode(order)
    pipe.write(_LENGTH.pack(len(data)) + data)
    pipe.flush()


def read_order(pipe: IO[bytes]) -> Order | None:
    """The next order; None when the supervisor has ended."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = pipe.read(length)
    return _DECODER.decode(data) if len(data) == length else None


def config_bytes(config: EngineConfig) -> bytes:
    return encode(Start("", config, 0))


def config_of(data: bytes) -> EngineConfig:
    start = decode_command(data)
    assert isinstance(start, Start)
    return start.config
