"""A part of a batch is the batch that its rows alone would have made."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from quire.attention.some_rows import outputs_alone, some_rows
from quire.attention.start_up_check import TrialStep, make_trial
from tests.fakes.attention import Definition, half_problem

ROWS = TrialStep(name="", computed=(18, 90, 0, 21, 90), new=(1, 1, 25, 2, 32))


@pytest.mark.parametrize(("first", "last"), [(0, 2), (0, 4), (1, 3), (2, 5), (4, 5), (0, 5)])
def test_attention_of_a_part_is_that_part_of_all_attention(first: int, last: int) -> None:
    problem = half_problem()
    trial, definition = make_trial(problem, ROWS), Definition(problem)
    whole = definition.forward(trial.q, trial.kv_cache, definition.plan(trial.batch, 0))
    tokens, part = some_rows(trial.batch, first, last)
    found = definition.forward(trial.q[tokens], trial.kv_cache, definition.plan(part, 0))
    assert found.equal(whole[tokens])
    assert len(part.input_ids) == len(part.positions) == part.query_start_cpu[-1] == len(found)
    assert part.query_start_cpu.equal(part.query_start)
    assert part.seq_lens_cpu.equal(part.seq_lens)
    assert part.num_decode_rows == ROWS.new[first:last].count(1)
    assert part.max_query_len == max(ROWS.new[first:last])
    assert part.max_seq_len == max(ROWS.lengths[first:last])


def test_an_order_of_decode_rows_is_kept_with_all_of_them_only() -> None:
    batch = make_trial(half_problem(), ROWS).batch
    batch = replace(batch, decode_order=torch.tensor([1, 0], dtype=torch.int32))
    assert some_rows(batch, 0, 3)[1].decode_order is batch.decode_order
    assert some_rows(batch, 1, 3)[1].decode_order is None
    assert some_rows(batch, 2, 5)[1].decode_order is None


def test_a_part_does_not_name_tokens_of_the_whole() -> None:
    batch = replace(make_trial(half_problem(), ROWS).batch, outputs=torch.tensor([60]))
    _, part = some_rows(batch, 0, 2)
    assert part.lines_of_outputs(torch.ones(len(part.input_ids), 3)).shape == (2, 3)


def test_of_a_mixed_graph_no_rows_can_be_taken() -> None:
    batch = replace(make_trial(half_problem(), ROWS).batch, num_decode_rows=None)
    with pytest.raises(AssertionError, match="known on the device alone"):
        some_rows(batch, 0, 2)


@pytest.mark.parametrize("device_knows", [False, True])
def test_attention_of_outputs_alone_is_that_of_their_queries(device_knows: bool) -> None:
    problem = half_problem(window=40)
    trial, definition = make_trial(problem, ROWS), Definition(problem)
    whole = definition.forward(trial.q, trial.kv_cache, definition.plan(trial.batch, 0))
    outputs = torch.tensor([60, 0, 26, 2, 28])  # last, first and inner tokens of rows
    batch = replace(trial.batch, outputs=outputs)
    if device_knows:
        batch = replace(batch, num_decode_rows=None)
    alone = outputs_alone(batch, 0)
    found = definition.forward(trial.q[outputs], trial.kv_cache, definition.plan(alone, 0))
    torch.testing.assert_close(found, whole[outputs], rtol=0, atol=0)
    assert alone.num_decode_rows == len(alone.seq_lens) == 5 and alone.max_query_len == 1
    assert alone.outputs is None
    assert alone.query_start_cpu.equal(alone.query_start)
    assert alone.seq_lens_cpu.equal(alone.seq_lens)
    (group,), (every,) = alone.groups, trial.batch.groups
    assert group.slot_mapping.equal(every.slot_mapping[outputs])
