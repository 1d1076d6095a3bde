"""The clients of an engine core behave alike; here with a core that needs no model."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from quire.config import EngineConfig
from quire.engine.attached import AttachedClient
from quire.engine.client import EngineClient, InprocClient
from quire.engine.core_loop import ReportPhase
from quire.engine.link import LinkClient
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
from quire.step_output import CompletionDelta, EngineStats
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import (
    BUILD_FAKE_CORE,
    EOS,
    FAIL_ALONE,
    FAIL_STEP,
    REFUSE,
    SYSTEM_EXIT,
    FakeCore,
)
from tests.fakes.waiting import wait_until

CLIENTS = {"inproc": InprocClient, "thread": ThreadClient, "process": ProcessClient}


@pytest.fixture(params=["attached", *sorted(CLIENTS)])
def client(request: pytest.FixtureRequest) -> Iterator[EngineClient]:
    with ExitStack() as stack:
        if request.param == "attached":
            owner = stack.enter_context(closing(ProcessClient(fake_config(), BUILD_FAKE_CORE)))
            yield stack.enter_context(closing(AttachedClient(owner.folder, "a")))
        else:
            made = CLIENTS[request.param](fake_config(), BUILD_FAKE_CORE)
            yield stack.enter_context(closing(made))


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


def let_come(client: LinkClient, num_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many messages about steps, and the one after them; nobody has received them yet."""
    link = client._link
    wait_step, has_step = link.wait_step, link.has_step
    come = deque(wait_step() for _ in range(num_steps))
    wait_until(has_step)
    monkeypatch.setattr(link, "wait_step", lambda: come.popleft() if come else wait_step())
    monkeypatch.setattr(link, "has_step", lambda: bool(come) or has_step())


@STEP_BY_THEMSELVES
def test_steps_that_nobody_has_received_yet_come_together(
    client: LinkClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.send(AddRequest(engine_request("a", [5, 6], max_tokens=20)))
    let_come(client, 19, monkeypatch)
    assert tokens_of(client.receive(), "a") == [5, 6] * 10


@STEP_BY_THEMSELVES
def test_a_failure_does_not_overtake_the_steps_before_it(
    client: LinkClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.send(AddRequest(engine_request("a", [5, 6], max_tokens=20)))
    wait_until(lambda: client.ask(STATS).num_running == 0)
    client.send(AddRequest(engine_request("b", [FAIL_STEP])))
    let_come(client, 20, monkeypatch)
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


@STEP_BY_THEMSELVES
def test_an_answer_that_nobody_waited_for_is_not_the_next_ones(
    client: LinkClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off() -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(client._link, "wait_answer", break_off)
            client.ask(STATS)
    assert client.ask(RESET_PREFIX_CACHE) is True
    assert client.ask(BLOCK_MAP) == bytes([0, 1, 2, 3])
    assert client.ask(STATS).block_size == 16


class SlowCore(FakeCore):
    """Its step lasts until it is let go, and calls somebody meanwhile."""

    calls: Callable[[], object] = lambda: None
    is_inside, go_on = threading.Event(), threading.Event()

    def step(self) -> list[CompletionDelta]:
        self.is_inside.set()
        type(self).calls()
        assert self.go_on.wait(20)
        self.is_inside.clear()
        return super().step()

    def stats(self) -> EngineStats:
        return EngineStats(num_running=int(self.is_inside.is_set()))


def build_slow_core(config: EngineConfig, report: ReportPhase) -> SlowCore:
    return SlowCore(config)


@pytest.fixture
def slow() -> Iterator[InprocClient]:
    SlowCore.is_inside.clear()
    SlowCore.go_on.clear()
    client = InprocClient(fake_config(), f"{__name__}:{build_slow_core.__name__}")
    client.send(AddRequest(engine_request("a", [5])))
    yield client
    client.close()


def test_another_thread_asks_between_two_steps_only(slow: InprocClient) -> None:
    told: list[EngineStats] = []
    stepping = threading.Thread(target=slow.receive)
    stepping.start()
    assert SlowCore.is_inside.wait(20)
    asking = threading.Thread(target=lambda: told.append(slow.ask(STATS)))
    asking.start()
    asking.join(0.1)
    assert told == []
    SlowCore.go_on.set()
    for thread in (stepping, asking):
        thread.join(20)
        assert not thread.is_alive()
    assert [stats.num_running for stats in told] == [0]


def test_what_a_step_calls_may_ask_and_does_not_wait(
    slow: InprocClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[EngineStats] = []
    SlowCore.go_on.set()
    monkeypatch.setattr(SlowCore, "calls", lambda: told.append(slow.ask(STATS)))
    stepping = threading.Thread(target=slow.receive, daemon=True)
    stepping.start()
    stepping.join(20)
    assert [stats.num_running for stats in told] == [1]


def keep_logits(output_token_ids: list[int], logits: object) -> object:
    return logits


@pytest.mark.parametrize("client", ["inproc", "thread"], indirect=True)
def test_functions_reach_a_core_in_this_process(client: EngineClient) -> None:
    sampling = RowSampling(logits_processors=(keep_logits,))
    client.send(AddRequest(engine_request("a", [5, 6], sampling=sampling)))
    assert tokens_of(receive_until_finished(client, 1), "a") == [5, 6, 5, 6]


@pytest.mark.parametrize("client", ["process"], indirect=True)
def test_functions_do_not_reach_a_core_in_another_process(client: EngineClient) -> None:
    sampling = RowSampling(logits_processors=(keep_logits,))
    with pytest.raises(ValueError, match="cannot reach an engine in another process"):
        client.send(AddRequest(engine_request("a", [5, 6], sampling=sampling)))
    assert client.ask(STATS).num_running == 0


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


def test_closed_client_refuses_and_a_second_close_does_nothing(client: EngineClient) -> None:
    client.close()
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(30)]  # where the client had its own
    client.close()
    for other in others:
        os.close(other)
    with pytest.raises(EngineDeadError, match="closed"):
        client.send(Abort(["a"]))
    with pytest.raises(EngineDeadError, match="closed"):
        client.receive()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads are what this is about
def test_fork_of_the_process_is_refused_at_once_and_disturbs_nothing(client: EngineClient) -> None:
    def use() -> None:
        calls: list[Callable[[], object]] = [
            lambda: client.send(Abort(["a"])),
            client.receive,
            lambda: client.ask(STATS),
        ]
        for call in calls:
            with pytest.raises(EngineDeadError, match=f"belongs to process {os.getppid()} .*spawn"):
                call()
        client.close()

    client.send(AddRequest(engine_request("a", [5], max_tokens=10**9)))
    assert exit_status_of_fork(use) == 0
    assert client.ask(STATS).num_running == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("client", ["thread", "process"], indirect=True)
def test_fork_does_not_wait_for_what_a_thread_of_its_parent_holds(client: LinkClient) -> None:
    def use() -> None:
        with pytest.raises(EngineDeadError, match="belongs to process"):
            client.receive()

    def wait() -> None:
        with pytest.raises(EngineDeadError, match="closed"):
            client.receive()

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(client._receiving.locked)
    assert exit_status_of_fork(use) == 0
    client.close()
    waiting.join(20)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_closed_client_stays_closed_in_a_fork(client: EngineClient) -> None:
    client.close()
    descriptors = [os.open(os.devnull, os.O_RDONLY) for _ in range(30)]

    def use() -> None:
        for descriptor in descriptors:
            os.fstat(descriptor)
        with pytest.raises(EngineDeadError, match="closed"):
            client.send(Abort(["a"]))

    assert exit_status_of_fork(use) == 0
    for descriptor in descriptors:
        os.close(descriptor)


def exit_status_of_fork(function: Callable[[], None]) -> int:
    """0 if the function returns in a fork of this process, 1 if it raises."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # ends a fork that hangs
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


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
