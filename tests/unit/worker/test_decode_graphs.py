"""What of the decode graphs a CPU can show: their buckets, their plans, their batch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from quire.kv_layout import KVLayout, LayerKV
from quire.step import StepPlan
from quire.worker.batch_builder import BatchBuilder
from quire.worker.decode_graphs import NoDecodeGraphs, bucket_sizes, is_plain_decode
from quire.worker.kv_memory import KVMemory
from quire.worker.rows import Rows
from quire.worker.step_layout import StepLayout
from tests.unit.worker.plans import PlanWriter

CPU = torch.device("cpu")


@pytest.mark.parametrize("max_rows", [1, 2, 3, 31, 32, 33, 100, 256, 1000, 1024])
def test_buckets_reach_the_limit_and_waste_little(max_rows: int) -> None:
    sizes = bucket_sizes(max_rows)
    assert sizes[0] == 1
    assert sizes[-1] == max_rows
    assert sizes == sorted(set(sizes))
    for smaller, larger in itertools.pairwise(sizes):
        assert larger <= max(2 * smaller, smaller + 32)
        assert smaller < 128 or larger <= smaller * 1.25


def plan(
    rows: list[int], num_computed: list[int], num_scheduled: list[int], samples: list[bool]
) -> StepPlan:
    return StepPlan(
        step_id=0,
        rows=np.array(rows, dtype=np.int32),
        num_computed=np.array(num_computed, dtype=np.int32),
        num_scheduled=np.array(num_scheduled, dtype=np.int32),
        samples=np.array(samples),
        epochs=np.zeros(len(rows), dtype=np.int32),
    )


def test_only_steps_of_one_sampled_token_a_row_are_plain() -> None:
    assert is_plain_decode(plan([0, 1], [4, 4], [1, 1], [True, True]))
    assert not is_plain_decode(plan([0, 1], [4, 4], [1, 2], [True, True]))
    assert not is_plain_decode(plan([0, 1], [4, 4], [1, 1], [True, False]))


def test_without_graphs_no_plan_is_taken() -> None:
    assert NoDecodeGraphs().logits(plan([0], [4], [1], [True])) is None


def test_batch_for_a_graph_is_that_of_the_plan() -> None:
    layout = KVLayout.of(tuple(LayerKV(num_kv_heads=1, head_dim=2, window=w) for w in (None, 5)))
    kv = KVMemory(layout, num_blocks=40, block_size=4, dtype=torch.float32, device=CPU)
    rows = Rows(max_rows=4, max_model_len=30, num_groups=2, block_size=4, device=CPU)
    builder = BatchBuilder(rows, kv, max_tokens=16, device=CPU)
    writer = PlanWriter(num_blocks=40, block_size=4, num_groups=2)
    for row, length in {2: 9, 0: 17}.items():
        writer.join(row, list(range(10 * row, 10 * row + length)), num_computed=length - 1)
    step = writer.plan({2: 1, 0: 1})
    rows.apply(step)
    wanted, _ = builder.build(step, StepLayout.of(step))
    padded = torch.tensor([2, 0, rows.spare_row]), torch.tensor([8, 16, 0])
    found = builder.decode_batch(*padded)
    for name in ("input_ids", "positions", "seq_lens"):
        assert torch.equal(getattr(found, name)[:2], getattr(wanted, name)), name
    assert torch.equal(found.query_start[:3], wanted.query_start)
    assert found.num_decode_rows == 3
    for mine, theirs in zip(found.groups, wanted.groups, strict=True):
        assert torch.equal(mine.slot_mapping[:2], theirs.slot_mapping)
        width = theirs.block_table.shape[1]
        assert torch.equal(mine.block_table[:2, :width], theirs.block_table)
        assert mine.slot_mapping[2] == 0  # the spare row writes to the null block
    assert np.array_equal(found.seq_lens_cpu.numpy(), [30] * 3)
