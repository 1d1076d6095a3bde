"""The main loop of an engine core that runs beside its front end, in a thread or in a process.

Owns the order of things: commands first, then one step, then its deltas. Knows nothing about how
messages travel; a `CoreChannel` does that.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from quire.config import EngineConfig
from quire.engine.messages import (
    QUERIES,
    Abort,
    AddRequest,
    Answer,
    Ask,
    Command,
    Deltas,
    Failed,
    Finish,
    Loading,
    Started,
    Stop,
)
from quire.request import FinishReason
from quire.step_output import ends_without_tokens

if TYPE_CHECKING:
    from quire.engine.core import EngineCore

_SHORTEST_S = 0.001  # the shortest wait that channels can measure
_LONGEST_S = 0.002  # the longest wait, since the device may be done earlier than expected
BUILD_CORE = "quire.engine.build:build_core"  # by name, so that the front end imports no torch
ReportPhase = Callable[[str], None]  # told the name of each phase of a start as it begins


class CoreChannel(Protocol):
    """The core's end of the connection to its front ends."""

    def take(self, *, timeout: float | None) -> list[Command]:
        """The commands received so far, in order. If there are none, wait for the next for up to
        ``timeout`` seconds, or without limit if it is None."""
        ...

    def put_step(self, reply: Deltas | Failed) -> None: ...

    def put_answer(self, reply: Loading | Started | Answer | Failed, client: str = "") -> None:
        """Answer the front end of that name; a failure is for all of them."""
        ...


def run_core(
    build: str,
    config: EngineConfig,
    channel: CoreChannel,
    on_ready: Callable[[], None] = lambda: None,
) -> Failed | None:
    """Build a core and serve it until it is told to stop; returns why it ended early, if it did.
    ``on_ready`` is called before the first command is taken.

    By then the failure has been sent to the front end: a failed start is the first answer, a later
    failure ends both streams.
    """
    try:
        core = build_by_name(build, config, lambda phase: channel.put_answer(Loading(phase)))
    except BaseException as error:  # SystemExit too: it would leave the front end waiting
        failed = Failed.of(error)
        channel.put_answer(failed)
        return failed
    on_ready()
    channel.put_answer(Started(core.facts))
    try:
        _serve(core, channel)
        core.close()
        return None
    except BaseException as error:
        failed = Failed.of(error)
        channel.put_step(failed)
        channel.put_answer(failed)
        return failed


def build_by_name(
    build: str, config: EngineConfig, report: ReportPhase = lambda phase: None
) -> EngineCore:
    """Build a core by calling "module:function" with the config and ``report``."""
    module, _, function = build.partition(":")
    builder: Callable[[EngineConfig, ReportPhase], EngineCore] = getattr(
        importlib.import_module(module), function
    )
    return builder(config, report)


def _serve(core: EngineCore, channel: CoreChannel) -> None:
    is_stopped = _warm_up(core, channel)
    while not is_stopped:
        timeout = _seconds_to_wait(core)
        is_stopped = _obey_all(core, channel, timeout)
        if timeout == 0 and core.has_unfinished:
            deltas = core.step()
            if deltas:
                channel.put_step(Deltas(deltas))


def _seconds_to_wait(core: EngineCore) -> float | None:
    """How long to wait for commands: 0 if a step is due, None (no limit) if there is nothing to
    do."""
    if not core.has_unfinished:
        return None
    spare = core.seconds_to_spare()
    return 0 if spare < _SHORTEST_S else min(spare, _LONGEST_S)


def _warm_up(core: EngineCore, channel: CoreChannel) -> bool:
    """Warm up until done or until the first request arrives; True if the core is to stop."""
    is_stopped = _obey_all(core, channel, timeout=0)
    while not (is_stopped or core.has_unfinished) and core.warm_up_more():
        is_stopped = _obey_all(core, channel, timeout=0)
    return is_stopped


def _obey_all(core: EngineCore, channel: CoreChannel, timeout: float | None) -> bool:
    """Carry out the commands that arrive within ``timeout`` seconds; True if the core is to
    stop."""
    for command in channel.take(timeout=timeout):
        if isinstance(command, Stop):
            return True
        _obey(core, command, channel)
    return False


def _obey(core: EngineCore, command: Command, channel: CoreChannel) -> None:
    if isinstance(command, Ask):
        value = QUERIES[command.query].answer(core)
        channel.put_answer(Answer(value, command.serial), command.client)
        return
    try:
        apply_command(core, command)
    except ValueError as error:
        if not isinstance(command, AddRequest):
            raise
        ends = ends_without_tokens(command.request, FinishReason.ERROR, str(error))
        channel.put_step(Deltas(ends))


def apply_command(core: EngineCore, command: Command) -> None:
    """Carry out a command that has no answer."""
    if isinstance(command, AddRequest):
        core.add_request(command.request)
    elif isinstance(command, Finish):
        core.finish(command.request_id, command.index)
    elif isinstance(command, Abort):
        core.abort(command.request_ids, keeps_tokens=command.keeps_tokens)
    else:
        raise TypeError(f"not a command that changes the core: {command!r}")
