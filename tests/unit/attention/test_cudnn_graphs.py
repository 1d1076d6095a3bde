"""A graph is built once a shape; what is computed is what the rows say, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quire.attention.cudnn_graphs import PagedSdpa, RaggedRows
from quire.attention.start_up_check import Trial, TrialStep, make_trial
from tests.fakes import fake_cudnn
from tests.fakes.attention import Definition, half_problem
from tests.fakes.fake_cudnn import FakeCudnn

PROBLEM = half_problem()
TRIAL = make_trial(PROBLEM, TrialStep(name="", computed=(20, 0, 7), new=(9, 30, 4)))


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> FakeCudnn:
    return fake_cudnn.install(monkeypatch)


def ragged(trial: Trial, spare: int, **other: Any) -> RaggedRows:
    """The trial's rows, and some without queries."""
    batch, none = trial.batch, torch.zeros(spare, dtype=torch.int32)
    table = batch.groups[0].block_table
    start = batch.query_start.long()
    given: dict[str, Any] = {
        "start": torch.cat((start, start[-1:].expand(spare))),
        "query_lens": torch.cat((batch.query_start.diff(), none)),
        "seq_lens": torch.cat((batch.seq_lens, none)),
        "block_table": torch.cat((table, table.new_zeros(spare, table.shape[1]))),
        "max_query_len": 32,
    }
    return RaggedRows(**{**given, **other})


def sdpa(*row_counts: int) -> PagedSdpa:
    return PagedSdpa(PROBLEM, row_counts=row_counts)


def wanted() -> torch.Tensor:
    ours = Definition(PROBLEM)
    return ours.forward(TRIAL.q, TRIAL.kv_cache, ours.plan(TRIAL.batch, 0))


@pytest.mark.usefixtures("cudnn")
@pytest.mark.parametrize("spare", [0, 5])
def test_it_is_the_definition_and_spare_rows_are_nothing(spare: int) -> None:
    out = torch.full((len(TRIAL.q) + 3, *TRIAL.q.shape[1:]), 7.0, dtype=torch.float16)
    sdpa(3 + spare).run(out[:-3], TRIAL.q, TRIAL.kv_cache, ragged(TRIAL, spare))
    torch.testing.assert_close(out[:-3], wanted(), atol=2e-3, rtol=2e-3)
    assert (out[-3:] == 7).all()


@pytest.mark.parametrize("how", ["inside", "apart"])
def test_queries_may_lie_in_any_way(how: str, cudnn: FakeCudnn) -> None:
    wide = torch.cat((TRIAL.q, TRIAL.q), dim=1)
    q = {"inside": wide[:, :4], "apart": TRIAL.q.transpose(0, 1).contiguous().transpose(0, 1)}[how]
    assert not q.is_contiguous()
    out = torch.empty_like(TRIAL.q)
    sdpa(4).run(out, q, TRIAL.kv_cache, ragged(TRIAL, 1))
    torch.testing.assert_close(out, wanted(), atol=2e-3, rtol=2e-3)


def test_a_shape_is_built_once_for_all_counts_of_rows(cudnn: FakeCudnn) -> None:
    attention, out = sdpa(4, 8), torch.empty_like(TRIAL.q)

    def run(cache: torch.Tensor, rows: RaggedRows) -> int:
        attention.run(out, TRIAL.q, cache, rows)
        return len(cudnn.graphs)

    rows, cache = ragged(TRIAL, 1), TRIAL.kv_cache
    assert [run(cache, rows), run(cache.clone(), rows), run(cache, ragged(TRIAL, 5))] == [2, 2, 2]
    assert run(cache, ragged(TRIAL, 1, max_query_len=64)) == 4
    assert run(torch.cat((cache, cache), dim=1), rows) == 6
    assert run(cache, rows) == 6


@pytest.mark.usefixtures("cudnn")
def test_layers_share_the_offsets_of_their_rows() -> None:
    rows = ragged(TRIAL, 1)
    assert rows.offsets(10).tolist() == [10 * start for start in rows.start.tolist()]
    assert rows.offsets(10) is rows.offsets(10)
    assert rows.offsets(3).tolist() != rows.offsets(10).tolist()
