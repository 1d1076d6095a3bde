"""GraphBatches: what a graph computes from its inputs is what the plan's own batch says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quire.batch import Batch
from quire.kernels.reference import lookup
from quire.kernels.reference.fetch import fetch
from quire.kv_layout import KVLayout, LayerKV
from quire.worker.batch_builder import BatchBuilder
from quire.worker.buckets import GraphSizes
from quire.worker.graph_batches import GraphBatches, first_full_group
from quire.worker.graph_inputs import GraphInputs
from quire.worker.kv_memory import KVMemory
from quire.worker.rows import Rows
from quire.worker.step_layout import StepLayout
from tests.unit.worker.plans import PlanWriter

CPU = torch.device("cpu")
MAX_LENGTH = 30
SIZES = GraphSizes(rows=(1, 2, 4), tokens=(16, 64))


def layout_of(*windows: int | None) -> KVLayout:
    return KVLayout.of(tuple(LayerKV(num_kv_heads=1, head_dim=2, window=w) for w in windows))


class Host:
    """Rows, and both ways from a plan to a batch."""

    def __init__(self) -> None:
        layout = layout_of(5, None)
        kv = KVMemory(layout, num_blocks=40, block_size=4, dtype=torch.float32, device=CPU)
        self.rows = Rows(
            max_rows=4, max_model_len=MAX_LENGTH, num_groups=2, block_size=4, device=CPU
        )
        self.builder = BatchBuilder(self.rows, kv, max_tokens=64, device=CPU)
        self.batches = GraphBatches(self.rows, kv, lookup, max_tokens=64)
        self.inputs = GraphInputs(
            SIZES, spare_row=4, max_length=MAX_LENGTH, num_slots=1, fetch=fetch, device=CPU
        )
        self.writer = PlanWriter(num_blocks=40, block_size=4, num_groups=2)


@pytest.fixture
def host() -> Host:
    return Host()


def assert_same_tables(found: Batch, wanted: Batch, num_tokens: int) -> None:
    num_rows = len(wanted.seq_lens)
    for mine, theirs in zip(found.groups, wanted.groups, strict=True):
        assert torch.equal(mine.slot_mapping[:num_tokens], theirs.slot_mapping)
        assert not (mine.slot_mapping[num_tokens:] // 4).any(), "spare tokens: the null block"
        width = theirs.block_table.shape[1]
        assert torch.equal(mine.block_table[:num_rows, :width], theirs.block_table)
        assert not mine.block_table[num_rows:].any()


def test_a_decode_step(host: Host) -> None:
    for row, length in {2: 9, 0: 17}.items():
        host.writer.join(row, list(range(10 * row, 10 * row + length)), num_computed=length - 1)
    plan = host.writer.plan({2: 1, 0: 1})
    host.rows.apply(plan)
    wanted, _ = host.builder.build(plan, StepLayout.of(plan))
    host.inputs.send_decode(4, plan.rows, plan.num_computed + 1, None)
    host.inputs.ring.fetch(host.inputs.decode_bytes(4, is_shared=False))
    found = host.batches.decode(host.inputs.sampled(4), None)
    for name in ("input_ids", "positions", "seq_lens"):
        assert torch.equal(getattr(found, name)[:2], getattr(wanted, name)), name
    assert found.query_start.tolist() == [0, 1, 2, 3, 4]
    assert found.num_decode_rows == 4
    assert found.seq_lens_cpu.tolist() == [MAX_LENGTH] * 4
    assert_same_tables(found, wanted, 2)
    assert all(group.shared is None for group in found.groups)


@pytest.mark.parametrize("tokens", [16, 64])
def test_a_mixed_step(tokens: int, host: Host) -> None:
    for row, length, computed in ((1, 9, 8), (3, 12, 0), (0, 6, 2)):
        host.writer.join(row, list(range(10 * row, 10 * row + length)), num_computed=computed)
    plan = host.writer.plan({1: 1, 0: 4, 3: 7})  # in the order in which the batch has them
    host.rows.apply(plan)
    wanted, sampled = host.builder.build(plan, StepLayout.of(plan))
    host.inputs.send_mixed(tokens, 2, plan)
    host.inputs.ring.fetch(host.inputs.mixed_bytes(tokens))
    inputs = host.inputs.mixed(tokens)
    found = host.batches.mixed(inputs, tokens)
    for name in ("input_ids", "positions"):
        assert torch.equal(getattr(found, name)[:12], getattr(wanted, name)), name
    assert torch.equal(found.query_start[:4], wanted.query_start)
    assert torch.equal(found.seq_lens[:3], wanted.seq_lens)
    assert found.query_start[-1] == len(found.input_ids) == tokens
    assert found.positions[12:].tolist() == [min(i, MAX_LENGTH - 1) for i in range(tokens - 12)]
    assert found.num_decode_rows is None
    assert (found.max_query_len, found.max_seq_len) == (tokens, MAX_LENGTH)
    assert_same_tables(found, wanted, 12)
    assert wanted.outputs is not None
    assert found.outputs is not None
    assert torch.equal(found.outputs[: len(sampled)], wanted.outputs)
    assert torch.equal(host.inputs.sampled(2).rows, sampled.rows)
    assert torch.equal(host.inputs.sampled(2).lengths, sampled.lengths)


def test_shared_blocks_are_those_of_the_group_without_a_window(host: Host) -> None:
    none = np.zeros(0, dtype=np.int32)
    host.inputs.send_decode(2, none, none, (none, none))
    host.inputs.ring.fetch(host.inputs.decode_bytes(2, is_shared=True))
    shared = host.inputs.shared(2)
    found = host.batches.decode(host.inputs.sampled(2), shared)
    assert [group.shared is shared for group in found.groups] == [False, True]


def test_only_groups_without_a_window_share_blocks() -> None:
    assert first_full_group(layout_of(None)) == 0
    assert first_full_group(layout_of(4, None, 4, None)) == 1
    assert first_full_group(layout_of(4)) is None
