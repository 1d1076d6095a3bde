"""The three clients of an engine core behave alike; here with a core that needs no model."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from quire.engine.client import EngineClient, InprocClient
from quire.engine.messages import (
    BLOCK_MAP,
    RESET_PREFIX_CACHE,
    STATS,
    Abort,
    AddRequest,
    Finish,
)
from quire.engine.process import ProcessClient
from quire.engine.thread import ThreadClient
from quire.errors import EngineDeadError
from quire.request import EngineRequest, FinishReason, RowSampling, Watch
from quire.step_output import CompletionDelta
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import (
    BUILD_FAKE_CORE,
    EOS,
    FAIL_ALONE,
    FAIL_STEP,
    REFUSE,
    SYSTEM_EXIT,
)

CLIENTS = {"inproc": InprocClient, "thread": ThreadClient, "process": ProcessClient}


@pytest.fixture(params=sorted(CLIENTS))
def client(request: pytest.FixtureRequest) -> Iterator[EngineClient]:
    made = CLIENTS[request.param](fake_config(), BUILD_FAKE_CORE)
    yield made
    made.close()


def engine_request(request_id: str, prompt: list[int], **fields: object) -> EngineRequest:
    defaults: dict[str, object] = {
        "sampling": RowSampling(stop_token_ids=(EOS,)),
        "max_tokens": 4,
    }
    return EngineRequest(request_id=request_id, prompt_token_ids=prompt, **{**defaults, **fields})


def receive_until_finished(client: EngineClient, num_completions: int) -> list[CompletionDelta]:
    deltas: list[CompletionDelta] = []
    while sum(delta.finish_reason is not None for delta in deltas) < num_completions:
        deltas += client.receive()
    return deltas


def tokens_of(deltas: list[CompletionDelta], request_id: str, index: int = 0) -> list[int]:
    return [
        token
        for delta in deltas
        if delta.request_id == request_id and delta.index == index
        for token in delta.new_token_ids
    ]


def test_requests_give_their_own_tokens(client: EngineClient) -> None:
    client.send(AddRequest(engine_request("a", [5, 6, 7], n=2)))
    client.send(AddRequest(engine_request("b", [8, EOS, 9])))
    deltas = receive_until_finished(client, 3)
    assert tokens_of(deltas, "a", 0) == [5, 6, 7, 5]
    assert tokens_of(deltas, "a", 1) == [6, 7, 5, 6]
    assert tokens_of(deltas, "b") == [8, EOS]
    ends = {(d.request_id, d.index): d.finish_reason for d in deltas if d.finish_reason}
    assert ends["b", 0] is FinishReason.STOP
    assert ends["a", 1] is FinishReason.LENGTH


def test_unwatched_completion_sends_one_delta(client: EngineClient) -> None:
    client.send(AddRequest(engine_request("a", [5, 6, 7], watch=Watch.AT_END)))
    deltas = receive_until_finished(client, 1)
    assert [delta.new_token_ids for delta in deltas] == [[5, 6, 7, 5]]


STEP_BY_THEMSELVES = pytest.mark.parametrize("client", ["thread", "process"], indirect=True)


def run_to_the_end(client: EngineClient) -> None:
    """And let all that is under way come here."""
    while client.ask(STATS).num_running:
        pass
    time.sleep(0.2)


@STEP_BY_THEMSELVES
def test_steps_that_nobody_has_received_yet_come_together(client: EngineClient) -> None:
    client.send(AddRequest(engine_request("a", [5, 6], max_tokens=20)))
    run_to_the_end(client)
    assert tokens_of(client.receive(), "a") == [5, 6] * 10


@STEP_BY_THEMSELVES
def test_a_failure_does_not_overtake_the_steps_before_it(client: EngineClient) -> None:
    client.send(AddRequest(engine_request("a", [5, 6], max_tokens=20)))
    run_to_the_end(client)
    client.send(AddRequest(engine_request("b", [FAIL_STEP])))
    time.sleep(0.2)
    assert tokens_of(receive_until_finished(client, 1), "a") == [5, 6] * 10
    for _ in range(2):
        with pytest.raises(EngineDeadError, match="on fire"):
            client.receive()


def test_aborted_and_finished_completions_send_no_more(client: EngineClient) -> None:
    client.send(AddRequest(engine_request("gone", [5], max_tokens=10**9)))
    client.send(AddRequest(engine_request("half", [6, 7], n=2, max_tokens=10**9)))
    client.send(Abort(["gone"]))
    client.send(Finish("half", 0))
    assert client.ask(STATS).num_running == 1
    client.send(Abort(["half", "never added"]))
    assert client.ask(STATS).num_running == 0


def test_questions_are_answered_while_requests_run(client: EngineClient) -> None:
    assert client.ask(RESET_PREFIX_CACHE) is True
    client.send(AddRequest(engine_request("a", [5], max_tokens=10**9)))
    assert client.ask(BLOCK_MAP) == bytes([0, 1, 2, 3])
    assert client.ask(STATS).num_running == 1
    assert client.ask(RESET_PREFIX_CACHE) is False


def test_facts_arrive_at_the_start(client: EngineClient) -> None:
    assert client.facts.num_blocks == 9
    assert client.facts.attention_backend == "fake"


def test_request_that_fails_alone_leaves_the_others(client: EngineClient) -> None:
    client.send(AddRequest(engine_request("bad", [FAIL_ALONE])))
    client.send(AddRequest(engine_request("good", [5, 6])))
    deltas = receive_until_finished(client, 2)
    (bad,) = [delta for delta in deltas if delta.request_id == "bad"]
    assert (bad.finish_reason, bad.error) == (FinishReason.ERROR, "this request failed")
    assert tokens_of(deltas, "good") == [5, 6, 5, 6]


def test_failing_step_kills_the_engine_with_its_cause(client: EngineClient) -> None:
    client.send(AddRequest(engine_request("a", [FAIL_STEP])))
    with pytest.raises(EngineDeadError) as caught:
        receive_until_finished(client, 1)
    assert str(caught.value).splitlines()[-1] == "RuntimeError: the fake device is on fire"
    assert caught.value.__cause__ is not None
    with pytest.raises(EngineDeadError, match="on fire"):
        client.send(AddRequest(engine_request("b", [5])))
    with pytest.raises(EngineDeadError, match="on fire"):
        client.ask(STATS)


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_core_that_exits_says_so_instead_of_nothing(kind: str) -> None:
    client = CLIENTS[kind](fake_config(), BUILD_FAKE_CORE)
    client.send(AddRequest(engine_request("a", [SYSTEM_EXIT])))
    with pytest.raises(EngineDeadError, match="SystemExit: the licence has expired"):
        receive_until_finished(client, 1)
    client.close()


@pytest.mark.parametrize("kind", sorted(CLIENTS))
def test_start_error_keeps_type_and_message(kind: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        CLIENTS[kind](fake_config("missing"), BUILD_FAKE_CORE)
    assert str(caught.value) == "no such model: missing"


def test_closed_client_refuses(client: EngineClient) -> None:
    client.close()
    client.close()
    with pytest.raises(EngineDeadError, match="closed"):
        client.send(Abort(["a"]))
    with pytest.raises(EngineDeadError, match="closed"):
        client.receive()


def test_core_that_refuses_a_request_in_process_raises_at_once() -> None:
    client = InprocClient(fake_config(), BUILD_FAKE_CORE)
    with pytest.raises(ValueError, match="refused by the core"):
        client.send(AddRequest(engine_request("a", [REFUSE])))
    client.close()


@pytest.mark.parametrize("make", [ThreadClient, ProcessClient])
def test_core_that_refuses_a_request_elsewhere_ends_it_alone(
    make: Callable[..., EngineClient],
) -> None:
    client = make(fake_config(), BUILD_FAKE_CORE)
    client.send(AddRequest(engine_request("a", [REFUSE], n=2)))
    deltas = receive_until_finished(client, 2)
    assert [(d.index, d.finish_reason, d.error) for d in deltas] == [
        (0, FinishReason.ERROR, "refused by the core"),
        (1, FinishReason.ERROR, "refused by the core"),
    ]
    client.close()


@pytest.mark.parametrize("make", [ThreadClient, ProcessClient])
def test_close_wakes_a_waiting_receiver(make: Callable[..., EngineClient]) -> None:
    client = make(fake_config(), BUILD_FAKE_CORE)
    caught: list[EngineDeadError] = []

    def wait_for_deltas() -> None:
        try:
            client.receive()
        except EngineDeadError as error:
            caught.append(error)

    thread = threading.Thread(target=wait_for_deltas)
    thread.start()
    client.close()
    thread.join(20)
    assert not thread.is_alive()
    assert "closed" in str(caught[0])


def test_thread_ends_when_its_client_is_dropped() -> None:
    before = set(threading.enumerate())
    client = ThreadClient(fake_config(), BUILD_FAKE_CORE)
    (thread,) = set(threading.enumerate()) - before
    del client
    gc.collect()
    assert not thread.is_alive()
