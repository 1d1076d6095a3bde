"""Layouts of checkpoints: every part comes out of a fused, transposed or stacked tensor as it went
in, whole and in slices."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from quire.weights.weight_map import (
    Fused,
    FusedHeads,
    Operation,
    Source,
    StackedExperts,
    Transposed,
    WeightMap,
)
from tests.fakes.checkpoints import MemoryCheckpoint

D = 3  # head size
E = 5  # hidden size


def check(operation: Operation, stored: dict[str, Tensor], expected: Tensor) -> None:
    """The operation finds `expected` in `stored`, and any slice of it."""
    tensors = MemoryCheckpoint(stored)
    assert set(operation.names()) == set(stored)
    assert operation.shape(tensors) == tuple(expected.shape)
    for index in itertools.product(*map(slices_of, expected.shape)):
        assert torch.equal(operation.read(tensors, index), expected[index])


def slices_of(size: int) -> list[slice]:
    half = (size + 1) // 2
    return [slice(0, size), slice(0, half), slice(half - 1, size), slice(size - 1, size)]


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_source_is_the_tensor_itself() -> None:
    weight = random(4, E)
    check(Source("w"), {"w": weight}, weight)


def test_transposed_is_stored_in_by_out() -> None:
    weight = random(4, E)
    check(Transposed("w"), {"w": weight.t().contiguous()}, weight)


def test_fused_parts_lie_one_after_the_other() -> None:
    parts = [random(rows, E) for rows in (4, 2, 3)]
    for operation, part in zip(Fused.split("w", 4, 2, 3), parts, strict=True):
        check(operation, {"w": torch.cat(parts)}, part)


def test_fused_conv1d_is_transposed_first() -> None:
    parts = [random(rows, E) for rows in (4, 4, 4)]
    stored = torch.cat(parts).t().contiguous()
    for operation, part in zip(Fused.split(Transposed("w"), 4, 4, 4), parts, strict=True):
        check(operation, {"w": stored}, part)


def test_fused_tensor_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="it has 12 rows and its parts need 8"):
        Fused.split("w", 4, 4)[0].shape(MemoryCheckpoint({"w": random(12, E)}))


@pytest.mark.parametrize("columns", [(), (E,)])
@pytest.mark.parametrize(
    ("layout", "num_heads", "num_kv_heads"),
    [
        ("concatenated", 4, 4),
        ("concatenated", 6, 2),
        ("concatenated", 3, 1),
        ("per_head", 4, 4),
        ("per_kv_group", 6, 2),
        ("per_kv_group", 4, 4),
        ("per_kv_group", 3, 1),
    ],
)
def test_fused_heads(
    layout: str, num_heads: int, num_kv_heads: int, columns: tuple[int, ...]
) -> None:
    q = random(num_heads * D, *columns)
    k, v = random(num_kv_heads * D, *columns) + 10, random(num_kv_heads * D, *columns) + 20
    if layout == "concatenated":
        stored = torch.cat([q, k, v])
    else:  # written out head by head
        group = num_heads // num_kv_heads
        rows = []
        for kv_head in range(num_kv_heads):
            heads = range(kv_head * group, (kv_head + 1) * group)
            rows += [q[head * D : (head + 1) * D] for head in heads]
            rows += [part[kv_head * D : (kv_head + 1) * D] for part in (k, v)]
        stored = torch.cat(rows)
    operations = FusedHeads.split("qkv", num_heads, num_kv_heads, D, layout)
    for operation, part in zip(operations, (q, k, v), strict=True):
        check(operation, {"qkv": stored}, part)


def test_fused_heads_of_another_number_are_refused() -> None:
    q, _, _ = FusedHeads.split("qkv", 4, 2, D)
    with pytest.raises(ValueError, match="it has 10 rows and 4 query heads and 2 KV heads"):
        q.shape(MemoryCheckpoint({"qkv": random(10, E)}))


def test_experts_are_stacked() -> None:
    experts = [random(4, E) + expert for expert in range(3)]
    stored = {f"experts.{i}.w1": expert for i, expert in enumerate(experts)}
    check(StackedExperts("experts.{expert}.w1", 3), stored, torch.stack(experts))


def test_fused_experts_are_cut_and_stacked() -> None:
    gates, ups = ([random(4, E) + 10 * i + j for i in range(3)] for j in range(2))
    stored = {
        f"experts.{i}.gate_up": torch.cat([gate, up])
        for i, (gate, up) in enumerate(zip(gates, ups, strict=True))
    }
    check(StackedExperts(Fused("experts.{expert}.gate_up", 4, 4), 3), stored, torch.stack(ups))


def test_experts_that_differ_in_shape_are_refused() -> None:
    stored = MemoryCheckpoint({"e.0": random(4, E), "e.1": random(3, E)})
    with pytest.raises(ValueError, match="its experts differ in shape"):
        StackedExperts("e.{expert}", 2).shape(stored)


def test_the_layers_number_goes_into_every_name() -> None:
    entries: dict[str, Operation] = {
        "embedding.weight": Source("wte"),
        "layers.*.norm1.weight": Source("h.*.ln_1"),
        "layers.*.moe.experts.up.weight": StackedExperts("h.*.e.{expert}.up", 2),
        "layers.*.attention.q.weight": Fused(Transposed("h.*.attn"), 0, 4),
    }
    weights = WeightMap(entries=entries)

    def names(canonical: str) -> tuple[str, ...]:
        operation = weights.operation(canonical)
        assert operation is not None
        return operation.names()

    assert names("embedding.weight") == ("wte",)
    assert names("layers.12.norm1.weight") == ("h.12.ln_1",)
    assert names("layers.3.moe.experts.up.weight") == ("h.3.e.0.up", "h.3.e.1.up")
    assert names("layers.0.attention.q.weight") == ("h.0.attn",)
    assert weights.operation("layers.0.attention.q.bias") is None
    assert weights.operation("head.weight") is None


def test_ignored_names_are_patterns() -> None:
    weights = WeightMap(entries={}, ignored=("*.rotary_emb.inv_freq", "lm_head.weight"))
    assert weights.ignores("model.layers.0.self_attn.rotary_emb.inv_freq")
    assert weights.ignores("lm_head.weight")
    assert not weights.ignores("lm_head.bias")
