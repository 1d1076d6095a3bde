"""The fa3 backend asks FlashAttention 3 for the definition; what it must not ask, it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from quire import platform
from quire.attention import fa3_backend, start_up_check
from quire.attention.backend import PlanOfNext
from quire.attention.fa3_backend import FA3Attention
from quire.attention.long_prompts import LongPromptPlan
from quire.attention.start_up_check import TrialStep, disagreements, make_trial
from tests.fakes import fake_flash_attn
from tests.fakes.attention import Definition, half_problem
from tests.fakes.fake_flash_attn import FakeFlashAttn

HEADS = 4
WORK = 16 * 20 * HEADS  # of 16 queries that see 20 keys on average
BLOCKS = 15  # that are gathered for a call
TILE = 24  # keys behind the last one that a program may read


@pytest.fixture(params=["flash_attn_interface", "fa3_fwd_interface"])
def fa3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FakeFlashAttn:
    monkeypatch.setattr(platform, "compute_capability", lambda: (9, 0))
    monkeypatch.setattr(start_up_check, "_TILE", 8)
    monkeypatch.setattr(fa3_backend, "_LEAST_WORK", WORK)
    monkeypatch.setattr(fa3_backend, "_LARGEST_TILE", TILE)
    heads = half_problem().block_size * half_problem().num_kv_heads * half_problem().head_dim
    monkeypatch.setattr(fa3_backend, "_GATHERED_BYTES", BLOCKS * heads * 2 * 2)
    monkeypatch.setattr(fake_flash_attn, "TILE", TILE)
    return fake_flash_attn.install(monkeypatch, request.param)


def on_gpu(**options: Any) -> list[str]:
    return FA3Attention.why_not(half_problem(device="cuda", **options))


LONG = [
    TrialStep(name="a prompt", computed=(0,), new=(33,)),
    TrialStep(name="prompts", computed=(0, 0), new=(33, 40)),
    TrialStep(name="chunks", computed=(70, 20), new=(16, 24)),
    TrialStep(name="mixed", computed=(18, 90, 0, 21, 70), new=(1, 1, 35, 2, 32)),
    TrialStep(name="two calls", computed=(100, 99), new=(17, 40)),
    TrialStep(name="behind one that is too long", computed=(300, 70), new=(1, 16)),
    TrialStep(name="before one that is too long", computed=(70, 300, 70), new=(16, 1, 16)),
]
SHORT = [
    TrialStep(name="decode", computed=(0, 15, 16, 90), new=(1, 1, 1, 1)),
    TrialStep(name="few queries", computed=(15, 90), new=(1, 3)),
    TrialStep(name="few keys", computed=(2, 0), new=(8, 25)),
    TrialStep(name="more than is gathered", computed=(220,), new=(16,)),
]


@pytest.mark.parametrize(("window", "soft_cap"), [(None, None), (20, None), (20, 30.0)])
@pytest.mark.parametrize("rows", [*LONG, *SHORT], ids=lambda rows: rows.name)
def test_backend_is_the_definition(
    rows: TrialStep, window: int | None, soft_cap: float | None, fa3: FakeFlashAttn
) -> None:
    problem = half_problem(window=window, soft_cap=soft_cap)
    trial = make_trial(problem, rows)
    theirs, ours = FA3Attention.build(problem), Definition(problem)
    plan = theirs.plan(trial.batch, 0)
    for _ in range(2):  # layers share a plan
        found = theirs.forward(trial.q, trial.kv_cache, plan)
        wanted = ours.forward(trial.q, trial.kv_cache, ours.plan(trial.batch, 0))
        torch.testing.assert_close(found, wanted, atol=2e-3, rtol=2e-3)
    if rows in SHORT and not (window and rows.name == "more than is gathered"):
        assert fa3.num_calls == 0
    elif window is None:
        assert fa3.num_calls == 2 * (2 if rows.name == "two calls" else 1)


def test_what_is_left_goes_to_the_next_backend(fa3: FakeFlashAttn) -> None:
    problem = half_problem()
    trial = make_trial(problem, LONG[3])
    backend = FA3Attention.build(problem, Definition(problem))
    plan = backend.plan(trial.batch, 0)
    assert isinstance(plan, LongPromptPlan)
    assert [part.tokens for part in plan.others] == [slice(0, 2)]
    assert [part.tokens for part in plan.prompts] == [slice(2, 71)], "what is between goes along"
    graph = backend.plan(replace(trial.batch, num_decode_rows=None), 0)
    assert isinstance(graph, PlanOfNext)
    backend.forward(trial.q, trial.kv_cache, graph)
    assert fa3.num_calls == 0


@pytest.mark.usefixtures("fa3")
def test_what_is_masked_is_not_seen_whatever_it_is() -> None:
    problem = half_problem()
    trial, backend = make_trial(problem, LONG[1]), FA3Attention.build(problem)
    wanted = backend.forward(trial.q, trial.kv_cache, backend.plan(trial.batch, 0))
    used = torch.zeros(trial.kv_cache.shape[1:3], dtype=torch.bool)
    for row, length in enumerate(LONG[1].lengths):
        for at in range(length):
            block = trial.batch.groups[0].block_table[row, at // problem.block_size]
            used[block, at % problem.block_size] = True
    trial.kv_cache[:, ~used] = float("nan")
    found = backend.forward(trial.q, trial.kv_cache, backend.plan(trial.batch, 0))
    assert torch.equal(found, wanted)


@pytest.mark.usefixtures("fa3")
def test_blocks_that_a_window_has_passed_are_not_gathered() -> None:
    problem = half_problem(window=33)
    trial = make_trial(problem, TrialStep(name="", computed=(100,), new=(16,)))
    plan = FA3Attention.build(problem).plan(trial.batch, 0)
    assert isinstance(plan, LongPromptPlan)
    (part,) = plan.prompts
    table = trial.batch.groups[0].block_table[0].tolist()
    assert part.blocks.tolist() == [*table[4:8], table[7]], "keys from 68 on, and a tile"
    assert part.num_keys.tolist() == [116 - 64]


def test_a_window_makes_work_less(fa3: FakeFlashAttn) -> None:
    rows = TrialStep(name="", computed=(90,), new=(16,))
    for window, num_calls in ((None, 1), (19, 0)):
        fa3.num_calls = 0
        problem = half_problem(window=window)
        trial, backend = make_trial(problem, rows), FA3Attention.build(problem)
        backend.forward(trial.q, trial.kv_cache, backend.plan(trial.batch, 0))
        assert fa3.num_calls == num_calls


@pytest.mark.usefixtures("fa3")
def test_the_start_up_check_accepts_it_and_finds_a_wrong_scale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fa3_backend, "_GATHERED_BYTES", 16 << 20)
    problem = half_problem(soft_cap=30.0)
    assert disagreements(FA3Attention, Definition, problem) == []

    class Unscaled(Definition):
        def __init__(self, problem: Any) -> None:
            super().__init__(replace(problem, scale=0.125))

    assert disagreements(FA3Attention, Unscaled, replace(problem, scale=0.3))


def test_the_start_up_check_has_a_step_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_flash_attn.install(monkeypatch)
    problem = half_problem(num_heads=8, head_dim=128, num_kv_heads=8)
    backend = FA3Attention.build(problem)
    taken = [
        rows.name
        for rows in start_up_check.steps_to_try(problem)
        if backend.are_long(
            torch.tensor(rows.new).numpy(), torch.tensor(rows.lengths).numpy()
        ).any()
    ]
    assert taken == ["chunks of long texts"]


@pytest.mark.usefixtures("fa3")
def test_what_it_cannot_serve_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_gpu(block_size=8, soft_cap=30.0, window=5) == []
    assert "100 values; it takes multiples of 8 up to 256" in on_gpu(head_dim=100)[0]
    assert "512 values" in on_gpu(head_dim=512)[0]
    assert "ALiBi" in on_gpu(alibi_slopes=(0.5,) * 4)[0]
    assert "not in torch.float32" in on_gpu(dtype=torch.float32)[0]
    assert "the model is on cpu" in FA3Attention.why_not(half_problem())[0]
    monkeypatch.setattr(platform, "compute_capability", lambda: (10, 0))
    assert "compute capability of 8 or 9" in on_gpu()[0]


def test_a_missing_package_comes_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "compute_capability", lambda: (9, 0))
    monkeypatch.setattr(fa3_backend, "find_spec", lambda name: None)
    (reason,) = on_gpu()
    assert reason.startswith("neither flash_attn_interface nor fa3_fwd_interface can be imported")
    assert "pip install fa3-fwd" in reason
