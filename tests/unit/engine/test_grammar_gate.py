"""The grammar gate: who waits for a grammar is passed by others, and ends alone if it is wrong."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from quire.config import SchedulerConfig
from quire.engine import grammar_gate
from quire.engine.core import EngineCore
from quire.engine.grammar_gate import GrammarGate
from quire.kv_cache.manager import KVCacheManager
from quire.request import BeamSearch, EngineRequest, FinishReason, RowSampling
from quire.scheduler.scheduler import Scheduler
from quire.step_output import CompletionDelta
from quire.structured import FREE, NO_TOKENS, Grammar, GrammarSpec, Thinking, TokenMark
from quire.structured_outputs.workshop import Workshop
from tests.fakes.configs import FAKE_FACTS
from tests.fakes.device import FakeDevice
from tests.fakes.gates import open_gate
from tests.unit.structured_outputs.grammars import compiled

GOOD = GrammarSpec(kind="regex", source="a+")
WRONG = GrammarSpec(kind="regex", source="wrong")


class HeldCompiler:
    """Compiles nothing until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def compile(self, spec: GrammarSpec) -> Grammar:
        self.go.wait(20)
        if spec is WRONG:
            raise ValueError("it is wrong")
        return compiled(regex=spec.source)


@pytest.fixture
def compiler() -> HeldCompiler:
    return HeldCompiler()


@pytest.fixture
def core(compiler: HeldCompiler) -> EngineCore:
    kv = KVCacheManager(num_blocks=20, block_size=4, windows=(None,), enable_prefix_caching=True)
    gate = GrammarGate(Workshop(compiler), NO_TOKENS)  # type: ignore[arg-type]
    return EngineCore(Scheduler(SchedulerConfig(), kv, 64), FakeDevice(4), FAKE_FACTS, 1, gate)


def request(
    name: str,
    grammar: GrammarSpec | None = None,
    n: int = 1,
    beam: BeamSearch | None = None,
) -> EngineRequest:
    return EngineRequest(
        request_id=name,
        prompt_token_ids=[5, 6, 7],
        sampling=RowSampling(),
        max_tokens=3,
        grammar=grammar,
        n=n,
        beam=beam,
    )


def run_until(core: EngineCore, *names: str) -> dict[str, list[CompletionDelta]]:
    """Steps until these have ended."""
    told: dict[str, list[CompletionDelta]] = {}
    end = time.monotonic() + 20
    ended: set[str] = set()
    while not set(names) <= ended and time.monotonic() < end:
        for delta in core.step():
            told.setdefault(delta.request_id, []).append(delta)
            if delta.finish_reason is not None:
                ended.add(delta.request_id)
    assert set(names) <= ended
    return told


def test_others_pass_who_waits_for_a_grammar(core: EngineCore, compiler: HeldCompiler) -> None:
    core.add_request(request("waits", GOOD, n=2))
    core.add_request(request("passes"))
    core.add_request(request("beams", GOOD, n=4, beam=BeamSearch(width=4)))
    assert core.stats().num_waiting == 4  # a search begins with one
    core.abort(["beams"])
    assert core.stats().num_waiting == 3
    assert set(run_until(core, "passes")) == {"passes"}
    assert core.has_unfinished and core.stats().num_waiting == 2
    compiler.go.set()
    told = run_until(core, "waits")
    assert FinishReason.LENGTH in [one.finish_reason for one in told["waits"]]
    while core.has_unfinished:
        core.step()
    core.check_integrity()


def test_a_wrong_grammar_ends_its_requests_alone(core: EngineCore, compiler: HeldCompiler) -> None:
    core.add_request(request("wrong", WRONG, n=2))
    core.add_request(request("right", GOOD))
    compiler.go.set()
    told = run_until(core, "wrong", "right")
    assert [(one.index, one.error) for one in told["wrong"]] == [
        (0, "it is wrong"),
        (1, "it is wrong"),
    ]
    assert told["right"][-1].finish_reason is FinishReason.LENGTH
    with pytest.raises(ValueError, match="it is wrong"):
        core.add_request(request("again", WRONG))
    assert not core.has_unfinished


def test_who_waits_can_be_aborted_and_keeps_its_id(
    core: EngineCore, compiler: HeldCompiler
) -> None:
    core.add_request(request("a", GOOD))
    with pytest.raises(ValueError, match="id 'a' is in use"):
        core.add_request(request("a"))
    core.abort(["a"])
    assert not core.has_unfinished
    compiler.go.set()
    core.add_request(request("a"))
    assert run_until(core, "a")["a"][-1].finish_reason is FinishReason.LENGTH


def test_who_waits_is_told_an_abort_that_keeps_tokens(core: EngineCore) -> None:
    core.add_request(request("a", GOOD, n=2))
    core.abort(["a"], keeps_tokens=True)
    told = run_until(core, "a")["a"]
    assert [(one.index, one.finish_reason) for one in told] == [
        (0, FinishReason.ABORT),
        (1, FinishReason.ABORT),
    ]
    assert not core.has_unfinished


def test_a_step_does_not_count_all_who_wait(
    core: EngineCore, compiler: HeldCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(20):
        core.add_request(request(str(index), GOOD, n=2))
    counted: list[str] = []
    plain = grammar_gate._num_queued

    def counting(one: EngineRequest) -> int:
        counted.append(one.request_id)
        return plain(one)

    monkeypatch.setattr(grammar_gate, "_num_queued", counting)
    core.add_request(request("passes"))
    run_until(core, "passes")
    assert core.has_unfinished and core.stats().num_waiting == 40
    assert counted == []
    core.abort(map(str, range(18)))
    assert core.stats().num_waiting == 4
    compiler.go.set()
    run_until(core, "18", "19")
    assert sorted(counted, key=int) == [str(index) for index in range(20)]  # each when it left
    while core.has_unfinished:
        core.step()
    assert core.stats().num_waiting == 0


def test_nothing_to_do_does_not_spin(core: EngineCore) -> None:
    core.add_request(request("a", GOOD))
    started, num_steps = time.monotonic(), 0
    while time.monotonic() - started < 0.1:
        assert core.step() == []
        num_steps += 1
    assert num_steps < 30


def test_who_brings_no_grammar_need_not_wait() -> None:
    gate = open_gate()
    assert gate.enter(request("a")) is FREE
    end = TokenMark(text=b"x", token_ids=(3,))
    thinking = Thinking(begins=(), ends=(end,), is_open=True, budget=2)
    constraint = gate.enter(replace(request("b"), thinking=thinking))
    assert constraint is not None and constraint.thinking is thinking
    assert not len(gate)
