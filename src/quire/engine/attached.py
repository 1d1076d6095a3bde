"""A front end of a core that another process has started: one of several that share it.

Request ids carry the front end's name on the way to the core and lose it on the way back. Knows
nothing about how the core's start and death are noticed: its owner reports both.
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

from msgspec.structs import force_setattr

from quire.engine.link import CoreSockets, LinkClient
from quire.engine.messages import (
    Abort,
    AddRequest,
    Attach,
    Command,
    Deltas,
    Detach,
    Finish,
    Reply,
    Started,
    with_client,
)
from quire.engine.start import StartWatch
from quire.errors import EngineDeadError


class AttachedClient(LinkClient):
    """An `EngineClient` like `ProcessClient`, of a core that it does not own."""

    def __init__(self, folder: Path, client: str, watch: StartWatch | None = None) -> None:
        self._core = _DistantCore(folder, client)
        if watch is not None:
            watch.can_be_ended_by(lambda: self._core.die("The engine stopped."))
        self._core.send(Attach(client))
        started = self._core.wait_answer()
        if not isinstance(started, Started):
            self._core.close()
            raise EngineDeadError(self._core.obituary())
        super().__init__(self._core, started.facts)

    def core_died(self, cause: str) -> None:
        """Make all waiting and future calls fail with ``cause``."""
        self._core.die(cause)


class _DistantCore:
    """A `Link` to a core that others keep alive."""

    def __init__(self, folder: Path, client: str) -> None:
        self.client = client
        self._sockets = CoreSockets(folder, client)
        self._prefix_length = len(with_client(client, ""))
        self._alive_fd, wake_fd = os.pipe()
        self._wake_fd: int | None = wake_fd
        self._cause: str | None = None
        self._ending = threading.Lock()

    def send(self, command: Command) -> None:
        self._sockets.send(self._named(command))

    def has_step(self) -> bool:
        return self._sockets.has_step()

    def wait_step(self) -> Reply | None:
        reply = self._sockets.wait(self._sockets.steps, self._alive_fd)
        if isinstance(reply, Deltas):
            for delta in reply.deltas:  # fresh from the socket, nobody else has them
                own_id = delta.request_id[self._prefix_length :]
                force_setattr(delta, "request_id", own_id)
        return reply

    def wait_answer(self) -> Reply | None:
        return self._sockets.wait(self._sockets.answers, self._alive_fd)

    def die(self, cause: str) -> None:
        with self._ending:
            self._cause = self._cause or cause
            if self._wake_fd is not None:
                os.close(self._wake_fd)  # the other end is readable now
                self._wake_fd = None

    def stop(self) -> None:
        self._sockets.expect_nothing()
        if self._cause is None:
            self.send(Detach(self.client))
        self.die("this front end was closed")

    def close(self) -> None:
        self.stop()
        self._sockets.close()
        os.close(self._alive_fd)

    def obituary(self) -> str:
        return self._cause or "The engine stopped."

    def _named(self, command: Command) -> Command:
        if isinstance(command, AddRequest):
            request = command.request
            return AddRequest(replace(request, request_id=self._name(request.request_id)))
        if isinstance(command, Finish):
            return Finish(self._name(command.request_id), command.index)
        if isinstance(command, Abort):
            named = [self._name(one) for one in command.request_ids]
            return Abort(named, command.keeps_tokens)
        return command

    def _name(self, request_id: str) -> str:
        return with_client(self.client, request_id)
