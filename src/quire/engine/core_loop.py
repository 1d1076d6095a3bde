"""The life of an engine core that runs beside its front end, in a thread or in a process.

Owns the order of things: commands first, then one step, then its deltas. Knows nothing about how
messages travel; a `CoreChannel` does that.
"""

from __future__ import annotations

import importlib
import time
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

LEAST_WAIT_S = 0.001  # what channels can measure
BUILD_CORE = "quire.engine.build:build_core"  # by name, so that the front end imports no torch
ReportPhase = Callable[[str], None]  # told the name of each phase of a start as it begins


class CoreChannel(Protocol):
    """The core's end of the road to its front end."""

    def take(self, *, timeout: float | None) -> list[Command]:
        """The commands that have come in, in order. If there are none, those that come first within
        ``timeout`` seconds, or None: whenever they come."""
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

    The front end has been told of a failure by then: a failed start is the first answer, a later
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
    """Call "module:function" with the config, and what it shall tell the phases of the start."""
    module, _, function = build.partition(":")
    builder: Callable[[EngineConfig, ReportPhase], EngineCore] = getattr(
        importlib.import_module(module), function
    )
    return builder(config, report)


def _serve(core: EngineCore, channel: CoreChannel) -> None:
    commands = channel.take(timeout=0)
    while not commands and core.warm_up_more():  # nobody waits yet
        commands = channel.take(timeout=0)
    while True:
        for command in commands:
            if isinstance(command, Stop):
                return
            _obey(core, command, channel)
        if core.has_unfinished:
            deltas = core.step()
            if deltas:
                channel.put_step(Deltas(deltas))
        commands = _commands_in_time(core, channel)


def _commands_in_time(core: EngineCore, channel: CoreChannel) -> list[Command]:
    """All that come before the core must plan its next step."""
    commands = channel.take(timeout=0 if core.has_unfinished else None)
    until = time.monotonic() + core.seconds_to_spare()
    while (left := until - time.monotonic()) >= LEAST_WAIT_S:
        commands += channel.take(timeout=left)
    return commands


def _obey(core: EngineCore, command: Command, channel: CoreChannel) -> None:
    if isinstance(command, Ask):
        channel.put_answer(Answer(QUERIES[command.query].answer(core)), command.client)
        return
    try:
        apply_command(core, command)
    except ValueError as error:
        if not isinstance(command, AddRequest):
            raise
        ends = ends_without_tokens(command.request, FinishReason.ERROR, str(error))
        channel.put_step(Deltas(ends))


def apply_command(core: EngineCore, command: Command) -> None:
    """Do what a command says that has no answer."""
    if isinstance(command, AddRequest):
        core.add_request(command.request)
    elif isinstance(command, Finish):
        core.finish(command.request_id, command.index)
    elif isinstance(command, Abort):
        core.abort(command.request_ids, keeps_tokens=command.keeps_tokens)
    else:
        raise TypeError(f"not a command that changes the core: {command!r}")
