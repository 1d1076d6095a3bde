"""The flashinfer backend asks FlashInfer for the definition; what it must not ask, it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from quire import platform
from quire.attention import flashinfer_backend, start_up_check
from quire.attention.backend import AttentionProblem, PlanOfNext
from quire.attention.flashinfer_backend import FlashInferAttention
from quire.attention.long_prompts import LongPromptAttention, LongPromptPlan
from quire.attention.some_rows import some_rows
from quire.attention.start_up_check import TrialStep, disagreements, make_trial
from quire.batch import Batch
from tests.fakes import fake_flashinfer
from tests.fakes.attention import Definition, half_problem


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_flashinfer.install(monkeypatch)
    monkeypatch.setattr(start_up_check, "_TILE", 8)
    monkeypatch.setattr(platform, "compute_capability", lambda: (9, 0))


def on_gpu(**options: Any) -> list[str]:
    return FlashInferAttention.why_not(half_problem(device="cuda", **options))


ROWS = [
    TrialStep(name="decode", computed=(0, 15, 16, 90), new=(1, 1, 1, 1)),
    TrialStep(name="prompts", computed=(0, 0), new=(33, 5)),
    TrialStep(name="mixed", computed=(18, 90, 0, 21, 90), new=(1, 1, 25, 2, 32)),
]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("rows", ROWS, ids=lambda rows: rows.name)
def test_backend_is_the_definition(rows: TrialStep, window: int | None) -> None:
    problem = half_problem(window=window)
    trial = make_trial(problem, rows)
    theirs, ours = FlashInferAttention.build(problem), Definition(problem)
    for _ in range(3):  # prefills take turns
        plan = theirs.plan(trial.batch, 0)
        found = theirs.forward(trial.q, trial.kv_cache, plan)
        wanted = ours.forward(trial.q, trial.kv_cache, ours.plan(trial.batch, 0))
        torch.testing.assert_close(found, wanted)


@pytest.mark.usefixtures("installed")
def test_queries_inside_of_a_larger_product_are_taken() -> None:
    problem = half_problem()
    trial = make_trial(problem, ROWS[2])
    theirs = FlashInferAttention.build(problem)
    plan = theirs.plan(trial.batch, 0)
    product = torch.cat((trial.q, trial.q), dim=1)
    found = theirs.forward(product[:, : problem.num_heads], trial.kv_cache, plan)
    assert found.equal(theirs.forward(trial.q, trial.kv_cache, plan))


@pytest.mark.usefixtures("installed")
def test_steps_of_decode_rows_and_mixed_graphs_are_for_our_own_kernels() -> None:
    problem = half_problem()
    backend = FlashInferAttention.build(problem)
    decode, prompts, mixed = (make_trial(problem, rows).batch for rows in ROWS)
    assert isinstance(backend.plan(decode, 0), PlanOfNext)
    assert isinstance(backend.plan(replace(mixed, num_decode_rows=None), 0), PlanOfNext)
    plans = [backend.plan(batch, 0) for batch in (prompts, mixed)]
    left = [plan.others for plan in plans if isinstance(plan, LongPromptPlan)]
    assert [[part.tokens for part in others] for others in left] == [[], [slice(0, 2)]]


class Longest(LongPromptAttention):
    """Takes rows with more than 20 queries, by the definition."""

    @staticmethod
    def why_not(problem: AttentionProblem) -> list[str]:
        return []

    def are_long(self, query_lens: np.ndarray, seq_lens: np.ndarray) -> np.ndarray:
        long: np.ndarray = query_lens > 20
        return long

    def plan_prompts(self, batch: Batch, block_table: Tensor, rows: slice) -> list[Any]:
        return [some_rows(batch, rows.start, rows.stop)]

    def attend(self, out: Tensor, q: Tensor, kv_cache: Tensor, part: Any) -> None:
        tokens, batch = part
        ours = Definition(half_problem())
        out[tokens] = ours.forward(q[tokens], kv_cache, ours.plan(batch, 0))


@pytest.mark.usefixtures("installed")
def test_prompts_on_both_sides_of_longer_ones_have_a_prefill_each() -> None:
    problem = half_problem()
    rows = TrialStep(name="", computed=(18, 90, 0, 21, 90), new=(1, 6, 25, 2, 9))
    trial, ours = make_trial(problem, rows), Definition(problem)
    theirs = Longest.build(problem, FlashInferAttention.build(problem, ours))
    for _ in range(3):
        found = theirs.forward(trial.q, trial.kv_cache, theirs.plan(trial.batch, 0))
        wanted = ours.forward(trial.q, trial.kv_cache, ours.plan(trial.batch, 0))
        torch.testing.assert_close(found, wanted)


@pytest.mark.usefixtures("installed")
def test_the_start_up_check_accepts_it_and_finds_a_wrong_scale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = half_problem(num_heads=2, num_kv_heads=1)
    assert disagreements(FlashInferAttention, Definition, problem) == []
    assert disagreements(FlashInferAttention, Definition, replace(problem, scale=0.3)) == []

    class Unscaled(Definition):
        def __init__(self, problem: Any) -> None:
            super().__init__(replace(problem, scale=0.125))

    assert disagreements(FlashInferAttention, Unscaled, replace(problem, scale=0.3))


@pytest.mark.usefixtures("installed")
def test_what_it_cannot_serve_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_gpu() == []
    assert "96 values; it takes 64, 128, 256" in on_gpu(head_dim=96)[0]
    assert "block_size=8; it takes 16" in on_gpu(block_size=8)[0]
    assert "soft cap" in on_gpu(soft_cap=30.0)[0]
    assert "ALiBi" in on_gpu(alibi_slopes=(0.5,) * 4)[0]
    assert "not in torch.float32" in on_gpu(dtype=torch.float32)[0]
    assert "5 query heads" in on_gpu(num_heads=5)[0]
    assert "the model is on cpu" in FlashInferAttention.why_not(half_problem())[0]
    monkeypatch.setattr(platform, "compute_capability", lambda: (7, 5))
    assert "compute capability of 8 or more" in on_gpu()[0]


def test_a_missing_package_comes_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "compute_capability", lambda: (9, 0))
    monkeypatch.setattr(flashinfer_backend, "find_spec", lambda name: None)
    assert on_gpu() == ["flashinfer cannot be imported (pip install flashinfer-python)"]
