"""The order of things in a core's life."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from quire.config import EngineConfig
from quire.engine.core_loop import run_core
from quire.engine.messages import AddRequest, Ask, Command, Deltas, Failed, Stop
from quire.request import EngineRequest, RowSampling
from quire.step_output import CompletionDelta
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import FakeCore

REQUEST = AddRequest(
    EngineRequest(request_id="a", prompt_token_ids=[5], sampling=RowSampling(), max_tokens=2)
)


class LoggingCore(FakeCore):
    """Notes what it is asked for."""

    log: list[str]
    to_spare = 0.0

    def seconds_to_spare(self) -> float:
        """What there is until the first look."""
        spare, self.to_spare = self.to_spare, min(self.to_spare, self.to_spare - 0.004)
        return spare

    def warm_up_more(self) -> bool:
        self.log.append("warm-up")
        return self.log.count("warm-up") < 3

    def step(self) -> list[CompletionDelta]:
        self.log.append("step")
        return super().step()


def build_logging_core(config: EngineConfig, report: Callable[[str], None]) -> LoggingCore:
    return LoggingCore(config)


class Channel:
    """Each command comes after so many entries of the core's log, or when it is waited for."""

    def __init__(self, log: list[str], *commands: tuple[int, Command]) -> None:
        self._log, self._commands = log, list(commands)
        self.deltas: list[Deltas] = []
        self.timeouts: list[float | None] = []

    def take(self, *, timeout: float | None) -> list[Command]:
        self.timeouts.append(timeout)
        if self._commands and (timeout is None or len(self._log) >= self._commands[0][0]):
            return [self._commands.pop(0)[1]]
        return []

    def put_step(self, reply: Deltas | Failed) -> None:
        assert isinstance(reply, Deltas), reply
        self.deltas.append(reply)

    def put_answer(self, reply: object, client: str = "") -> None:
        assert not isinstance(reply, Failed), reply


Serve = Callable[..., Channel]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    monkeypatch.setattr(LoggingCore, "log", seen, raising=False)
    return seen


@pytest.fixture
def serve(log: list[str], monkeypatch: pytest.MonkeyPatch) -> Serve:
    """A core's whole life, with these commands and so much time to spare at first."""

    def serve(*commands: tuple[int, Command], to_spare: float = 0.0) -> Channel:
        monkeypatch.setattr(LoggingCore, "to_spare", to_spare)
        channel = Channel(log, *commands)
        build = f"{__name__}:{build_logging_core.__name__}"
        assert run_core(build, fake_config(), channel) is None
        return channel

    return serve


@pytest.mark.parametrize(
    ("comes_after", "expected"),
    [
        (0, ["step", "step"]),
        (2, ["warm-up", "warm-up", "step", "step"]),
        (9, ["warm-up", "warm-up", "warm-up", "step", "step"]),
    ],
)
def test_sizes_are_warmed_up_while_nobody_asks_for_anything(
    comes_after: int, expected: list[str], log: list[str], serve: Serve
) -> None:
    channel = serve((comes_after, REQUEST), (9, Stop()))
    assert log == expected
    assert sum(len(one.new_token_ids) for said in channel.deltas for one in said.deltas) == 2


def test_a_step_is_planned_as_late_as_the_device_allows(log: list[str], serve: Serve) -> None:
    channel = serve((0, REQUEST), (9, Stop()), to_spare=0.004)
    assert log == ["step", "step"]
    assert None in channel.timeouts  # nothing to do
    assert any(wait is not None and 0.001 <= wait <= 0.004 for wait in channel.timeouts)


def test_commands_are_obeyed_while_a_step_is_put_off(log: list[str], serve: Serve) -> None:
    serve((0, REQUEST), (0, Stop()), to_spare=1000.0)
    assert log == []  # no step: the device was said to be busy for long


def test_questions_do_not_end_the_warm_up(log: list[str], serve: Serve) -> None:
    serve((0, Ask("stats")), (1, Ask("stats")), (9, Stop()))
    assert log == ["warm-up"] * 3
