"""Kernels that compute what our own do are accepted; those that are wrong by one token are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from quire.attention import start_up_check
from quire.attention.backend import AttentionProblem, PlanOfNext
from quire.attention.start_up_check import disagreements, make_trial, steps_to_try
from quire.attention.triton_backend import TritonAttention
from quire.batch import Batch
from tests.fakes.attention import Definition, half_problem


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_up_check, "_TILE", 8)


PROBLEMS = [
    half_problem(),
    half_problem(dtype=torch.bfloat16, num_kv_heads=4),
    half_problem(window=7),
    half_problem(window=40, soft_cap=30.0),
    half_problem(scale=1.0, head_dim=32, num_kv_heads=1),
]


class Coarse(Definition):
    """Rounds its queries and results once more, as kernels may."""

    def forward(self, q: Tensor, kv_cache: Tensor, plan: Any) -> Tensor:
        found = super().forward(q.float(), kv_cache, plan)
        return (found * (1 + torch.finfo(q.dtype).eps / 2)).to(q.dtype)


class MissesLastKey(Definition):
    def plan(self, batch: Batch, group: int) -> Any:
        return super().plan(replace(batch, seq_lens=(batch.seq_lens - 1).clamp(min=1)), group)


class SeesOneMore(Definition):
    def plan(self, batch: Batch, group: int) -> Any:
        width = batch.groups[group].block_table.shape[1] * batch.kv_caches[0].shape[2]
        return super().plan(replace(batch, seq_lens=(batch.seq_lens + 1).clamp(max=width)), group)


class SwapsBlocks(Definition):
    def plan(self, batch: Batch, group: int) -> Any:
        batch, table = super().plan(batch, group)
        return batch, table.roll(1, dims=0)


class ReturnsNaN(Definition):
    def forward(self, q: Tensor, kv_cache: Tensor, plan: Any) -> Tensor:
        return super().forward(q, kv_cache, plan) * torch.nan


class WrongTheSecondTime(Definition):
    calls = 0

    def forward(self, q: Tensor, kv_cache: Tensor, plan: Any) -> Tensor:
        self.calls += 1
        return super().forward(q, kv_cache, plan) * self.calls


class MadeForTheFirst(Definition):
    """Serves every prompt with what it made for the first one's number of rows."""

    num_rows: int | None = None

    def plan(self, batch: Batch, group: int) -> Any:
        if batch.max_query_len > 2 * start_up_check._TILE:
            self.num_rows = self.num_rows or len(batch.seq_lens)
            kept = torch.arange(len(batch.seq_lens)) < self.num_rows
            batch = replace(
                batch, seq_lens=torch.where(kept, batch.seq_lens, batch.query_start.diff())
            )
        return super().plan(batch, group)


class Raises(Definition):
    def forward(self, q: Tensor, kv_cache: Tensor, plan: Any) -> Tensor:
        raise RuntimeError("this build does not support paged KV")


class TrustsTheHost(Definition):
    """Takes the host's word for how many rows have one query, which graphs do not give."""

    def plan(self, batch: Batch, group: int) -> Any:
        assert batch.num_decode_rows == int((batch.query_start.diff() == 1).sum())
        return super().plan(batch, group)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_what_only_rounds_otherwise_is_accepted(problem: AttentionProblem) -> None:
    assert disagreements(Coarse, Definition, problem) == []


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("wrong", [MissesLastKey, SeesOneMore, SwapsBlocks, ReturnsNaN])
def test_what_is_wrong_is_refused(problem: AttentionProblem, wrong: type[Definition]) -> None:
    reasons = disagreements(wrong, Definition, problem)
    assert reasons
    assert all("differ from our own kernel's by" in reason for reason in reasons)


@pytest.mark.parametrize("window", [7, 40, 4096])
@pytest.mark.parametrize("change", [-1, 1, None])
def test_a_window_that_is_wrong_by_one_is_refused(window: int, change: int | None) -> None:
    class OtherWindow(Definition):
        def __init__(self, problem: AttentionProblem) -> None:
            other = None if change is None else window + change
            super().__init__(replace(problem, window=other))

    problem = half_problem(window=window, num_heads=2, num_kv_heads=1, head_dim=32)
    assert disagreements(OtherWindow, Definition, problem)


def test_another_soft_cap_is_refused() -> None:
    class NoCap(Definition):
        def __init__(self, problem: AttentionProblem) -> None:
            super().__init__(replace(problem, soft_cap=None))

    assert disagreements(NoCap, Definition, half_problem(soft_cap=30.0))


def test_counters_that_are_not_put_back_are_noticed() -> None:
    assert disagreements(WrongTheSecondTime, Definition, half_problem())


def test_what_is_made_for_the_first_shape_only_is_noticed() -> None:
    reasons = disagreements(MadeForTheFirst, Definition, half_problem())
    assert any("long and short rows" in reason for reason in reasons)


def test_the_cache_has_one_size_in_all_steps() -> None:
    sizes = set()

    class Noticing(Definition):
        def forward(self, q: Tensor, kv_cache: Tensor, plan: Any) -> Tensor:
            sizes.add(kv_cache.shape)
            return super().forward(q, kv_cache, plan)

    assert disagreements(Noticing, Definition, half_problem()) == []
    assert len(sizes) == 1


def test_what_a_package_raises_is_the_reason() -> None:
    reasons = disagreements(Raises, Definition, half_problem())
    assert reasons == ["RuntimeError: this build does not support paged KV"]


def test_what_our_own_kernels_raise_is_no_reason_against_theirs() -> None:
    with pytest.raises(RuntimeError, match="this build"):
        disagreements(Definition, Raises, half_problem())


def test_no_memory_for_both_is_a_reason_against_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(start_up_check, "make_trial", fail)
    assert disagreements(Definition, Definition, half_problem()) == ["OutOfMemoryError: no room"]


class LeavesSome(Definition):
    """To our own kernels: their answers are not asked for."""

    leaves_all = False

    def plan(self, batch: Batch, group: int) -> Any:
        if self.leaves_all or batch.num_decode_rows:
            return PlanOfNext(plan=None)
        return super().plan(batch, group)

    def forward(self, q: Tensor, kv_cache: Tensor, plan: Any) -> Tensor:
        assert not isinstance(plan, PlanOfNext)
        return super().forward(q, kv_cache, plan)


class LeavesAll(LeavesSome):
    leaves_all = True


class LeavesSomeAndIsWrong(LeavesSome, ReturnsNaN):
    pass


def test_steps_that_are_left_to_our_own_kernels_are_not_compared_unless_all_are() -> None:
    assert disagreements(LeavesSome, Definition, half_problem()) == []
    assert len(disagreements(LeavesSomeAndIsWrong, Definition, half_problem())) > 1
    (reason,) = disagreements(LeavesAll, Definition, half_problem())
    assert "leaves every step" in reason


def test_our_own_kernels_compute_no_step_that_is_left_to_them() -> None:
    sizes: dict[str, set[int]] = {"theirs": set(), "ours": set()}

    class Theirs(LeavesSome):
        def forward(self, q: Tensor, kv_cache: Tensor, plan: Any) -> Tensor:
            sizes["theirs"].add(len(q))
            return super().forward(q, kv_cache, plan)

    class Ours(Definition):
        def forward(self, q: Tensor, kv_cache: Tensor, plan: Any) -> Tensor:
            sizes["ours"].add(len(q))
            return super().forward(q, kv_cache, plan)

    assert disagreements(Theirs, Ours, half_problem()) == []
    assert sizes["ours"] == sizes["theirs"] != set()


def test_steps_in_graphs_are_tried() -> None:
    (reason,) = disagreements(TrustsTheHost, Definition, half_problem())
    assert reason.startswith("AssertionError")


def test_a_step_has_its_decode_rows_first_and_every_block_once() -> None:
    problem = half_problem()
    for rows in steps_to_try(problem):
        batch = make_trial(problem, rows).batch
        query_lens = batch.query_start.diff().tolist()
        assert all(n == 1 for n in query_lens[: batch.num_decode_rows])
        assert 1 not in query_lens[batch.num_decode_rows :]
        used = batch.groups[0].block_table
        used = used[used != 0]
        assert len(used) == len(used.unique())


def test_our_own_kernel_agrees_with_the_definition() -> None:
    problem = half_problem(window=20, num_heads=2, num_kv_heads=1, head_dim=16)
    rows = [rows for rows in steps_to_try(problem) if not rows.is_mixed_graph]
    for trial in (make_trial(problem, one) for one in rows):
        theirs, ours = TritonAttention.build(problem), Definition(problem)
        found = theirs.forward(trial.q, trial.kv_cache, theirs.plan(trial.batch, 0))
        wanted = ours.forward(trial.q, trial.kv_cache, ours.plan(trial.batch, 0))
        torch.testing.assert_close(found, wanted, rtol=0, atol=4e-3)
