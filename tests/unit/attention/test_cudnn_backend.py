"""The cudnn backend asks cuDNN for the definition; what it must not ask, it says or does itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from quire import platform
from quire.attention import cudnn_backend, start_up_check
from quire.attention.backend import PlanOfNext
from quire.attention.cudnn_backend import CudnnAttention
from quire.attention.long_prompts import LongPromptPlan
from quire.attention.start_up_check import TrialStep, disagreements, make_trial
from tests.fakes import fake_cudnn
from tests.fakes.attention import Definition, half_problem
from tests.fakes.fake_cudnn import FakeCudnn

SMALL = {
    "_TILE": 8,
    "_LEAST_PROGRAMS": 8,
    "_PIECE": 16,
    "_PIECES": (2, 4),
    "_TABLE_TOKENS": 128,
}


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> FakeCudnn:
    monkeypatch.setattr(platform, "compute_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    # Tiles and pieces of a few queries, so that small rows are long.
    for name, value in SMALL.items():
        monkeypatch.setattr(cudnn_backend, name, value)
    monkeypatch.setattr(start_up_check, "_TILE", 8)
    return fake_cudnn.install(monkeypatch)


def on_gpu(**options: Any) -> list[str]:
    return CudnnAttention.why_not(half_problem(device="cuda", **options))


ROWS = [
    TrialStep(name="prompts", computed=(0, 0), new=(33, 5)),
    TrialStep(name="chunk", computed=(70,), new=(16,)),
    TrialStep(name="three", computed=(3, 0, 17), new=(9, 8, 2)),
    TrialStep(name="mixed", computed=(18, 90, 0, 21, 90), new=(1, 1, 25, 2, 32)),
    TrialStep(name="short around", computed=(18, 3, 0, 90, 7), new=(1, 2, 17, 5, 3)),
    TrialStep(name="many pieces", computed=(2, 0, 150, 5), new=(1, 70, 33, 9)),
]
SHORT = TrialStep(name="short", computed=(18, 0), new=(1, 7))
FEW = TrialStep(name="few", computed=(18, 5), new=(1, 8))
DECODE = TrialStep(name="decode", computed=(0, 15), new=(1, 1))


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("rows", [*ROWS, SHORT, FEW, DECODE], ids=lambda rows: rows.name)
def test_backend_is_the_definition(rows: TrialStep, window: int | None, cudnn: FakeCudnn) -> None:
    problem = half_problem(window=window)
    trial = make_trial(problem, rows)
    theirs, ours = CudnnAttention.build(problem), Definition(problem)
    plan = theirs.plan(trial.batch, 0)
    for _ in range(2):  # layers share a plan
        found = theirs.forward(trial.q, trial.kv_cache, plan)
        wanted = ours.forward(trial.q, trial.kv_cache, ours.plan(trial.batch, 0))
        torch.testing.assert_close(found, wanted, atol=2e-3, rtol=2e-3)
    assert len(cudnn.graphs) == (2 if rows in ROWS else 0)


@pytest.mark.usefixtures("cudnn")
@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("rows", ROWS, ids=lambda rows: rows.name)
def test_what_other_owners_of_a_block_have_there_reaches_nobody(
    rows: TrialStep, window: int | None
) -> None:
    problem = half_problem(window=window)
    trial, size = make_trial(problem, rows, 64), problem.block_size
    theirs, ours = CudnnAttention.build(problem), Definition(problem)
    wanted = ours.forward(trial.q, trial.kv_cache, ours.plan(trial.batch, 0))
    is_own = torch.zeros(trial.kv_cache.shape[1:3], dtype=torch.bool)
    for row, table in enumerate(trial.batch.groups[0].block_table):
        first_block = max(rows.computed[row] - window + 1, 0) // size if window else 0
        table[:first_block] = 63  # given back, and somebody else's by now
        is_own.view(-1)[_slots(table, first_block * size, rows.lengths[row], size)] = True
    own = trial.kv_cache[:, is_own]
    trial.kv_cache[:, ~is_own] = torch.nan
    plan = theirs.plan(trial.batch, 0)
    found = theirs.forward(trial.q, trial.kv_cache, plan)
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=2e-3)
    assert trial.kv_cache[:, is_own].equal(own)


def _slots(table: torch.Tensor, first: int, length: int, block_size: int) -> torch.Tensor:
    position = torch.arange(first, length)
    return table[position // block_size].long() * block_size + position % block_size


@pytest.mark.usefixtures("cudnn")
def test_queries_inside_of_a_larger_product_are_taken() -> None:
    problem = half_problem()
    trial = make_trial(problem, ROWS[3])
    theirs = CudnnAttention.build(problem)
    plan = theirs.plan(trial.batch, 0)
    product = torch.cat((trial.q, trial.q), dim=1)
    found = theirs.forward(product[:, : problem.num_heads], trial.kv_cache, plan)
    assert found.equal(theirs.forward(trial.q, trial.kv_cache, plan))


def test_steps_of_any_size_share_two_graphs(cudnn: FakeCudnn) -> None:
    problem = half_problem()
    backend = CudnnAttention.build(problem)
    for new in ((17, 9, 3), (32, 2, 2, 30), (90,), (40, 40, 40), (8, 8)):
        trial = make_trial(problem, TrialStep(name="", computed=(0,) * len(new), new=new), 20)
        backend.forward(trial.q, trial.kv_cache, backend.plan(trial.batch, 0))
    assert len(cudnn.graphs) == 2


@pytest.mark.usefixtures("cudnn")
def test_prompts_are_cut_into_pieces_and_short_rows_around_them_are_ours() -> None:
    batch = make_trial(half_problem(), ROWS[5]).batch
    plan = CudnnAttention.build(half_problem()).plan(batch, 0)
    assert isinstance(plan, LongPromptPlan)
    assert [part.tokens for part in plan.others] == [slice(0, 1)]
    first, second, third = plan.prompts  # nine pieces, at most four at a time
    assert first.start.tolist() == [1, 17, 33, 49, 65]
    assert first.query_lens.tolist() == [16] * 4
    assert first.seq_lens.tolist() == [16, 32, 48, 64]
    assert second.start.tolist() == [65, 71, 87, 103, 104]
    assert second.seq_lens.tolist() == [70, 166, 182, 183]
    assert third.start.tolist() == [104, 113, 113]
    assert third.query_lens.tolist() == [9, 0]
    assert third.seq_lens.tolist() == [14, 0]
    around = CudnnAttention.build(half_problem()).plan(make_trial(half_problem(), ROWS[4]).batch, 0)
    assert isinstance(around, LongPromptPlan)
    assert [part.tokens for part in around.others] == [slice(0, 3), slice(20, 28)]


def test_steps_in_a_graph_are_for_our_own_kernel(cudnn: FakeCudnn) -> None:
    backend = CudnnAttention.build(half_problem())
    batch = make_trial(half_problem(), ROWS[3]).batch
    assert isinstance(backend.plan(batch, 0), LongPromptPlan)
    assert isinstance(backend.plan(replace(batch, num_decode_rows=None), 0), PlanOfNext)
    assert not cudnn.graphs


def test_the_start_up_check_accepts_it_and_finds_a_wrong_scale(cudnn: FakeCudnn) -> None:
    problem = half_problem(num_heads=2, num_kv_heads=1)
    assert disagreements(CudnnAttention, Definition, problem) == []
    assert cudnn.graphs

    class Unscaled(Definition):
        def __init__(self, problem: Any) -> None:
            super().__init__(replace(problem, scale=0.125))

    assert disagreements(CudnnAttention, Unscaled, replace(problem, scale=0.3))


@pytest.mark.usefixtures("cudnn")
def test_what_it_cannot_serve_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_gpu() == []
    assert on_gpu(head_dim=96, window=30) == []
    assert "264 values; it takes multiples of 8 up to 256" in on_gpu(head_dim=264)[0]
    assert "block_size=8; it takes 16" in on_gpu(block_size=8)[0]
    assert "soft cap" in on_gpu(soft_cap=30.0)[0]
    assert "ALiBi" in on_gpu(alibi_slopes=(0.5,) * 4)[0]
    assert "not in torch.float32" in on_gpu(dtype=torch.float32)[0]
    assert "the model is on cpu" in CudnnAttention.why_not(half_problem())[0]
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91000)
    assert "torch brings cuDNN 91000; it needs 91002 or later" in on_gpu()[0]
    monkeypatch.setattr(platform, "compute_capability", lambda: (8, 6))
    assert "compute capability of 9 or more" in on_gpu()[0]


@pytest.mark.usefixtures("cudnn")
def test_a_missing_package_comes_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudnn_backend, "find_spec", lambda name: None)
    assert on_gpu() == ["cudnn cannot be imported (pip install nvidia-cudnn-frontend)"]
