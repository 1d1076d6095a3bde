"""KVMemory: zeroed, shared between layer groups, copied block by block."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from quire.kv_layout import KVLayout, LayerKV
from quire.step import StepPlan
from quire.worker.kv_memory import KVMemory

CPU = torch.device("cpu")
FULL = LayerKV(num_kv_heads=2, head_dim=4)
WINDOW = LayerKV(num_kv_heads=2, head_dim=4, window=8)


def memory_of(*layers: LayerKV, dtype: torch.dtype = torch.float32) -> KVMemory:
    return KVMemory(
        KVLayout.of(layers),
        num_blocks=6,
        block_size=8,
        dtype=dtype,
        device=CPU,
    )


def test_memory_has_the_bytes_that_the_layout_promises_and_starts_as_zeros() -> None:
    kv = memory_of(FULL, FULL, FULL)
    assert kv.num_bytes == 6 * kv.layout.bytes_per_block(8, 4)
    assert [tuple(tensor.shape) for tensor in kv.of_layer] == [(2, 6, 8, 2, 4)] * 3
    assert all(tensor.count_nonzero() == 0 for tensor in kv.of_layer)


def test_layers_of_different_groups_share_a_tensor() -> None:
    kv = memory_of(FULL, WINDOW)
    assert kv.of_layer[0] is kv.of_layer[1]
    assert kv.num_bytes == 6 * kv.layout.bytes_per_block(8, 4)


def test_layers_of_different_shapes_have_tensors_of_their_own() -> None:
    kv = memory_of(FULL, LayerKV(num_kv_heads=1, head_dim=4))
    assert [tuple(tensor.shape) for tensor in kv.of_layer] == [(2, 6, 8, 2, 4), (2, 6, 8, 1, 4)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e4m3fn], ids=str)
def test_a_copied_block_has_the_keys_and_values_of_its_source_in_every_layer(
    dtype: torch.dtype,
) -> None:
    kv = memory_of(FULL, FULL, dtype=dtype)
    for tensor in kv.of_layer:
        tensor.copy_(torch.randn(tensor.shape))
    before = [tensor.float() for tensor in kv.of_layer]
    kv.copy_blocks([(1, 4), (3, 2)])
    for tensor, old in zip([one.float() for one in kv.of_layer], before, strict=True):
        assert torch.equal(tensor[:, [4, 2]], old[:, [1, 3]])
        assert torch.equal(tensor[:, [0, 1, 3, 5]], old[:, [0, 1, 3, 5]])


def test_copying_a_block_copies_no_more_than_that() -> None:
    kv = memory_of(FULL)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kv.copy_blocks([(1, 4)])
    assert max(event.cpu_memory_usage for event in seen.events()) < kv.num_bytes / 2


def plan_of(*spans: tuple[int, int]) -> StepPlan:
    """Rows 0 and on, each with tokens from a position up to another."""
    starts, ends = (np.array(part, dtype=np.int32) for part in zip(*spans, strict=True))
    return StepPlan(
        step_id=1,
        rows=np.arange(len(spans), dtype=np.int32),
        num_computed=starts,
        num_scheduled=ends - starts,
        samples=np.ones(len(spans), dtype=np.bool_),
        epochs=np.zeros(len(spans), dtype=np.int32),
    )


def dirty(tensor: torch.Tensor) -> list[int]:
    """Blocks in which something is left."""
    return torch.unique(tensor.transpose(0, 1).flatten(1).isnan().any(1).nonzero()).tolist()


def test_a_block_that_a_step_begins_and_does_not_fill_is_zeroed_in_every_layer_and_group() -> None:
    kv = memory_of(FULL, LayerKV(num_kv_heads=1, head_dim=4, window=8))
    tables = np.array([[[1, 2], [3, 4]], [[5, 1], [2, 3]]])
    for tensor in kv.of_layer:
        tensor.fill_(torch.nan)
    kv.enter(plan_of((7, 9), (0, 3)), tables)  # row 0 begins its second block, row 1 its first
    for tensor in kv.of_layer:
        assert dirty(tensor) == [0, 4, 5]  # [2, 3] of one group and [1, 2] of the other are clean


def test_a_block_that_goes_on_or_is_filled_at_once_keeps_what_it_has() -> None:
    kv = memory_of(FULL)
    tables = np.array([[[1, 2], [3, 4], [5, 0]]])
    for tensor in kv.of_layer:
        tensor.fill_(torch.nan)
    kv.enter(plan_of((3, 6), (0, 16), (7, 8)), tables)
    assert dirty(kv.of_layer[0]) == [0, 1, 2, 3, 4, 5]
    kv.clean_null_block()
    assert dirty(kv.of_layer[0]) == [1, 2, 3, 4, 5]
