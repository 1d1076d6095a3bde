"""What one of several HTTP processes is told, and what it makes of that."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from quire.engine.async_engine import AsyncLLM
from quire.engine.process import ProcessClient
from quire.engine.start import StartWatch
from quire.errors import EngineDeadError
from quire.prompts import ParsedPrompt
from quire.sampling_params import SamplingParams
from quire.server.args import ServerArgs
from quire.server.http_process import SharedEngine
from quire.server.orders import (
    Boot,
    Down,
    Fail,
    Order,
    StartPhase,
    StopServing,
    Up,
    config_bytes,
    config_of,
    read_order,
    write_order,
)
from quire.server.peers import Place
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE

ARGS = ServerArgs(api_key=["a", "b"], default_chat_template_kwargs={"a": [1]}, port=0)
ORDERS: list[Order] = [
    Boot(ARGS, Place("/tmp/p", 1, 2, 5), 3, 20, True),
    StartPhase("weights"),
    Up("/tmp/x", "0", b"\x00\xff"),
    Down("it died\nof something"),
    Fail("it died"),
    StopServing(),
]


def test_orders_survive_the_pipe() -> None:
    pipe = io.BytesIO()
    for order in ORDERS:
        write_order(pipe, order)
    pipe.seek(0)
    boot, *others = [read_order(pipe) for _ in ORDERS]
    assert isinstance(boot, Boot) and (boot.listener_fd, boot.log_level) == (3, 20)
    assert boot.place == Place("/tmp/p", 1, 2, 5)
    assert boot.args.api_key == ["a", "b"]
    assert boot.args.default_chat_template_kwargs == {"a": [1]}
    assert others == ORDERS[1:]
    assert read_order(pipe) is None


def test_a_pipe_that_ends_within_an_order_has_ended() -> None:
    pipe = io.BytesIO()
    write_order(pipe, ORDERS[0])
    for length in (2, 4, 10):
        assert read_order(io.BytesIO(pipe.getvalue()[:length])) is None


def test_a_configuration_survives_the_pipe() -> None:
    assert config_of(config_bytes(fake_config())) == fake_config()


@pytest.fixture
def owner() -> Iterator[ProcessClient]:
    made = ProcessClient(fake_config(), BUILD_FAKE_CORE)
    yield made
    made.close()


def up(owner: ProcessClient, client: str) -> Up:
    return Up(str(owner.folder), client, config_bytes(fake_config()))


async def tokens_of(engine: AsyncLLM) -> list[int]:
    params = SamplingParams(max_tokens=2, detokenize=False)
    outputs = [one async for one in engine.generate({"prompt_token_ids": [5, 6]}, params, "a")]
    return list(outputs[-1].outputs[0].token_ids)


async def test_an_engine_opens_when_the_core_is_up(owner: ProcessClient) -> None:
    shared, watch, opened = SharedEngine(), StartWatch(), []
    opener = threading.Thread(target=lambda: opened.append(shared.open(watch)))
    opener.start()
    shared.hear(up(owner, "0"))
    opener.join()
    assert await tokens_of(opened[0]) == [5, 6]
    opened[0].shutdown()


async def test_an_engine_dies_with_the_core_and_the_next_one_opens(owner: ProcessClient) -> None:
    shared = SharedEngine()
    shared.hear(up(owner, "0"))
    first = shared.open(StartWatch())
    os.kill(owner.pid, signal.SIGKILL)
    shared.hear(Down("it was unplugged"))
    with pytest.raises(EngineDeadError, match="unplugged"):
        await tokens_of(first)
    first.shutdown()
    with contextlib.closing(ProcessClient(fake_config(), BUILD_FAKE_CORE)) as another:
        shared.hear(up(another, "1"))
        second = shared.open(StartWatch())
        assert await tokens_of(second) == [5, 6]
        second.shutdown()
    plain = ("a", ParsedPrompt(token_ids=[5]), SamplingParams())
    seeds = {each.front.process(*plain).engine.sampling.seed for each in (first, second)}
    assert len(seeds) == 2  # what the first has answered does not come again


def test_a_core_that_dies_before_it_is_joined_is_forgotten(owner: ProcessClient) -> None:
    shared = SharedEngine()
    shared.hear(Up("/nonexistent", "0", b""))
    shared.hear(Down("it died while it started"))
    shared.hear(up(owner, "1"))
    engine = shared.open(StartWatch())
    assert engine.is_running
    engine.shutdown()


def test_when_there_will_be_no_core_it_is_over() -> None:
    shared = SharedEngine()
    assert not shared.is_over
    shared.hear(Fail("no memory"))
    assert shared.is_over
    with pytest.raises(EngineDeadError, match="no memory"):
        shared.open(StartWatch())


def test_phases_of_the_core_are_ours_too() -> None:
    shared, watch = SharedEngine(), StartWatch()

    def open_in_vain() -> None:
        with pytest.raises(EngineDeadError, match="enough"):
            shared.open(watch)

    opener = threading.Thread(target=open_in_vain)
    opener.start()
    while watch.phase is None:
        shared.hear(StartPhase("weights"))
    assert watch.phase == "weights"
    shared.hear(Fail("enough"))
    opener.join()
