"""GraphInputs: a step's numbers are at their places; what is behind them is the spare row's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quire.kernels.reference.fetch import fetch
from quire.step import StepPlan
from quire.worker.buckets import GraphSizes
from quire.worker.graph_inputs import GraphInputs
from quire.worker.input_ring import ALIGNMENT
from quire.worker.prefix_sharing import SharedRows

SPARE_ROW = 4
SIZES = GraphSizes(rows=(1, 2, 4), tokens=(6, 8, 16))


def graph_inputs(num_slots: int = 1) -> GraphInputs:
    """With a single slot every send finds there what the one before left."""
    return GraphInputs(
        SIZES,
        spare_row=SPARE_ROW,
        max_length=5,
        num_slots=num_slots,
        fetch=fetch,
        device=torch.device("cpu"),
    )


def decode(
    inputs: GraphInputs,
    bucket: int,
    rows: np.ndarray,
    lengths: np.ndarray,
    shared: SharedRows | None = None,
) -> None:
    inputs.send_decode(bucket, rows, lengths, shared)
    inputs.ring.fetch(inputs.decode_bytes(bucket, is_shared=shared is not None))


def mixed(inputs: GraphInputs, tokens: int, bucket: int) -> None:
    inputs.send_mixed(tokens, bucket, MIXED)
    inputs.ring.fetch(inputs.mixed_bytes(tokens))


def int32(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


MIXED = StepPlan(
    step_id=0,
    rows=int32(3, 0, 2),
    num_computed=int32(7, 0, 4),
    num_scheduled=int32(1, 2, 3),
    samples=np.array([True, False, True]),
    epochs=int32(0, 0, 0),
)


def test_decode_rows_are_followed_by_the_spare_row() -> None:
    inputs = graph_inputs()
    mixed(inputs, 16, 4)  # leaves its numbers everywhere
    decode(inputs, 4, int32(1, 3), int32(9, 20))
    found = inputs.sampled(4)
    assert found.rows.tolist() == [1, 3, SPARE_ROW, SPARE_ROW]
    assert found.lengths.tolist() == [9, 20, 1, 1]


def test_the_longest_rows_come_first_and_the_spare_ones_last() -> None:
    inputs = graph_inputs()
    decode(inputs, 4, int32(0, 1, 2), int32(5, 9, 7))
    assert inputs.sampled(4).order.tolist() == [1, 2, 0, 3]


def test_the_order_follows_the_rows() -> None:
    inputs = graph_inputs()
    decode(inputs, 2, int32(0, 1), int32(5, 9))
    assert inputs.sampled(2).order.tolist() == [1, 0]
    decode(inputs, 2, int32(1, 0), int32(10, 6))
    assert inputs.sampled(2).order.tolist() == [0, 1]


def test_shared_blocks_are_followed_by_none() -> None:
    inputs = graph_inputs()
    mixed(inputs, 16, 4)
    decode(inputs, 4, int32(1, 3, 0), int32(9, 20, 9), (int32(2, 0, -1), int32(5, 0, 5)))
    assert inputs.sampled(4).rows.tolist() == [1, 3, 0, SPARE_ROW]
    assert inputs.shared(4).members.tolist() == [2, 0, -1, -1]
    assert inputs.shared(4).num_blocks.tolist() == [5, 0, 5, 0]


@pytest.mark.parametrize("num_slots", [1, 2, 4])
def test_slots_that_hold_other_steps_give_every_step_its_own_numbers(num_slots: int) -> None:
    """Buckets, rows, prefixes and kinds of steps come and go; slots keep what did not change."""
    rng = np.random.default_rng(0)
    inputs, fresh = graph_inputs(num_slots), graph_inputs()
    prefixes = [(int32(*range(n)), int32(*range(5, 5 + n))) for n in range(5)]
    for _ in range(300):
        if rng.random() < 0.2:
            mixed(inputs, 8, 4)
            continue
        num_rows = int(rng.integers(1, 5))
        rows = int32(*rng.choice([[0, 1, 2, 3], [3, 1, 2, 0]])[:num_rows])
        lengths = int32(*rng.permutation(40)[:num_rows])
        bucket = next(size for size in SIZES.rows if size >= num_rows)
        shared = prefixes[num_rows] if rng.random() < 0.5 else None
        decode(inputs, bucket, rows, lengths, shared)
        decode(fresh, bucket, rows, lengths, shared)
        found, wanted = inputs.sampled(bucket), fresh.sampled(bucket)
        assert found.rows.tolist() == wanted.rows.tolist()
        assert found.lengths.tolist() == wanted.lengths.tolist()
        assert sorted(found.order.tolist()) == list(range(bucket))
        if shared is not None:
            spare = bucket - num_rows
            assert inputs.shared(bucket).members.tolist() == shared[0].tolist() + [-1] * spare
            assert inputs.shared(bucket).num_blocks.tolist() == shared[1].tolist() + [0] * spare


def test_the_last_row_of_a_mixed_step_takes_the_spare_tokens() -> None:
    inputs = graph_inputs()
    mixed(inputs, 8, 2)
    found = inputs.mixed(8)
    assert found.rows.tolist() == [3, 0, 2, SPARE_ROW, SPARE_ROW]
    assert found.query_start.tolist() == [0, 1, 3, 6, 6, 8]
    assert found.seq_lens.tolist() == [8, 2, 7, 0, 2]
    assert found.starts.tolist() == [7, -1, 1, -6, -6]  # position = start + place
    assert found.outputs.tolist() == [0, 5, 6, 6]
    assert inputs.sampled(2).rows.tolist() == [3, 2]
    assert inputs.sampled(2).lengths.tolist() == [8, 7]


def test_outputs_that_there_are_not_see_few_keys() -> None:
    """They are attended for like the others."""
    inputs = graph_inputs()
    mixed(inputs, 6, 2)  # no spare token; the rows have 7, 0 and 4 tokens already
    assert inputs.mixed(6).outputs.tolist() == [0, 5, 1, 1]


def test_attention_is_shown_no_more_spare_tokens_than_a_row_may_have() -> None:
    inputs = graph_inputs()
    mixed(inputs, 16, 2)
    assert inputs.mixed(16).query_start[-2:].tolist() == [6, 16]
    assert inputs.mixed(16).seq_lens[-1] == 5


def test_kernels_find_every_tensor_aligned() -> None:
    inputs = graph_inputs()
    first = inputs.sampled(1).rows.data_ptr()
    for tensor in (
        inputs.sampled(2).lengths,
        inputs.shared(1).members,
        inputs.shared(1).num_blocks,
        inputs.mixed(8).query_start,
        inputs.mixed(8).seq_lens,
        inputs.mixed(16).outputs,
    ):
        assert (tensor.data_ptr() - first) % ALIGNMENT == 0
