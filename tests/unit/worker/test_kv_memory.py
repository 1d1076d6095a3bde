"""KVMemory: zeroed, shared between layer groups, copied block by block."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile

from quire.kv_layout import KVLayout, LayerKV
from quire.worker.kv_memory import KVMemory

CPU = torch.device("cpu")
FULL = LayerKV(num_kv_heads=2, head_dim=4)
WINDOW = LayerKV(num_kv_heads=2, head_dim=4, window=8)


def memory_of(*layers: LayerKV) -> KVMemory:
    return KVMemory(
        KVLayout.of(layers),
        num_blocks=6,
        block_size=8,
        dtype=torch.float32,
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


def test_a_copied_block_has_the_keys_and_values_of_its_source_in_every_layer() -> None:
    kv = memory_of(FULL, FULL)
    for tensor in kv.of_layer:
        tensor.copy_(torch.randn(tensor.shape))
    before = [tensor.clone() for tensor in kv.of_layer]
    kv.copy_blocks([(1, 4), (3, 2)])
    for tensor, old in zip(kv.of_layer, before, strict=True):
        assert torch.equal(tensor[:, [4, 2]], old[:, [1, 3]])
        assert torch.equal(tensor[:, [0, 1, 3, 5]], old[:, [0, 1, 3, 5]])


def test_copying_a_block_copies_no_more_than_that() -> None:
    kv = memory_of(FULL)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kv.copy_blocks([(1, 4)])
    assert max(event.cpu_memory_usage for event in seen.events()) < kv.num_bytes / 2
