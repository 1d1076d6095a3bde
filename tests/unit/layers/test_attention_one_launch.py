"""A layer whose decode steps are one launch attends as one whose steps never are."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from quire.attention.backend import AttentionProblem
from quire.attention.launches import plan_launches
from quire.attention.one_launch import OneLaunch
from quire.attention.some_rows import outputs_alone
from quire.attention.triton_backend import TritonPlan
from quire.batch import Batch
from quire.kernels.reference.attention import paged_attention, write_kv
from quire.kernels.reference.norm import rms_norm
from quire.kernels.reference.rope import rotate_half
from quire.kernels.selection import kernels_for
from quire.kernels.shapes import DecodeRows, HeadsShape
from quire.kv_layout import KVLayout, LayerKV
from quire.layers import attention as layer_module
from quire.layers import heads as heads_module
from quire.layers import linear as linear_module
from quire.layers.attention import Attention
from quire.layers.forward_pass import ForwardPass
from quire.layers.rope import RopeAngles
from quire.layers.spec import AttentionSpec, LayerNormSpec, RMSNormSpec, RopeSpec
from tests.fakes.attention import Definition
from tests.fakes.batches import FakeRows
from tests.unit.layers.readers import MemoryReader

SIZE, HEADS, KV_HEADS, DIM = 6, 4, 2, 16
CPU = torch.device("cpu")
ROPE = RopeSpec(dim=DIM, theta=100.0)
SPEC = AttentionSpec(
    hidden_size=SIZE,
    num_heads=HEADS,
    num_kv_heads=KV_HEADS,
    head_dim=DIM,
    scale=0.25,
    positions=ROPE,
    qkv_bias=True,
    qk_norms=(RMSNormSpec(size=DIM, eps=1e-2), RMSNormSpec(size=DIM, eps=1e-3)),
)
Norms = tuple[Tensor, ...] | None


def store_heads(
    qkv: Tensor, cos: Tensor, sin: Tensor, kv_cache: Tensor, slots: Tensor,
    *, shape: HeadsShape, norms: Norms,
) -> Tensor:  # fmt: skip
    """What a GPU's fused kernel of heads does."""
    split = (shape.num_heads, shape.num_kv_heads, shape.num_kv_heads)
    q, k, v = qkv.unflatten(1, (-1, shape.head_dim)).split(split, dim=1)
    if norms is not None:
        q, k = (rms_norm(x, w, e) for x, w, e in zip((q, k), norms, shape.eps, strict=True))
    write_kv(rotate_half(k, cos, sin), v, kv_cache, slots)
    return rotate_half(q, cos, sin)


class Attend:
    """All of it for rows with one query; counts its calls."""

    num_calls = 0
    block_bytes = 5000

    def __init__(self, problem: AttentionProblem, shape: HeadsShape, norms: Norms) -> None:
        self._scale = problem.scale
        self._store = partial(store_heads, shape=shape, norms=norms)

    def is_usable(self) -> bool:
        return True

    def __call__(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, kv_cache: Tensor, slots: Tensor,
        rows: DecodeRows,
    ) -> Tensor:  # fmt: skip
        self.num_calls += 1
        q = self._store(qkv, cos, sin, kv_cache, slots)
        start = torch.arange(len(q) + 1)
        return paged_attention(
            q, kv_cache, rows.block_table, start, rows.seq_lens, scale=self._scale
        )


class Backend(Definition):
    """With plans like our own kernels'; counts its calls."""

    num_calls = 0

    def plan(self, batch: Batch, group: int) -> TritonPlan:
        return TritonPlan(launches=plan_launches(batch, group))

    def forward(self, q: Tensor, kv_cache: Tensor, plan: TritonPlan) -> Tensor:
        self.num_calls += 1
        return torch.cat(
            [
                paged_attention(
                    q[launch.tokens],
                    kv_cache,
                    launch.block_table,
                    launch.query_start,
                    launch.seq_lens,
                    scale=self.problem.scale,
                )
                for launch in plan.launches
            ]
        )


class Layer:
    """On a device with the fused kernel of heads, and perhaps with the one for all."""

    def __init__(self, patch: pytest.MonkeyPatch, spec: AttentionSpec, *, in_one: bool) -> None:
        self.attends: list[Attend] = []

        def one_launch(
            problem: AttentionProblem, shape: HeadsShape, norms: Norms, device: torch.device
        ) -> OneLaunch | None:
            if not in_one:
                return None
            self.attends.append(Attend(problem, shape, norms))
            return OneLaunch(self.attends[-1])

        kernels = replace(
            kernels_for(CPU),
            store_heads=lambda shape, norms: partial(store_heads, shape=shape, norms=norms),
        )
        patch.setattr(heads_module, "kernels_for", lambda device: kernels)
        patch.setattr(layer_module, "one_launch", one_launch)
        problem = AttentionProblem(
            num_heads=HEADS,
            num_kv_heads=KV_HEADS,
            head_dim=DIM,
            scale=spec.scale,
            dtype=torch.float32,
            device="cpu",
        )
        self.backend = Backend(problem)
        self._attention = Attention(
            spec, problem=problem, backend=self.backend, rotation=0, plan=0, layer=0
        )
        self._attention.load(MemoryReader.random(spec.parameters(), "a"), "a", None)
        self._angles = RopeAngles(ROPE, max_model_len=64, device=CPU)

    def attended(self, batch: Batch, outputs: Tensor | None = None) -> Tensor:
        planned = batch if outputs is None else outputs_alone(replace(batch, outputs=outputs), 0)
        step = ForwardPass(
            batch=batch,
            rotations=(self._angles.at(batch.positions),),
            attention_plans=(self.backend.plan(planned, 0),),
            outputs=outputs,
        )
        h = torch.randn(len(batch.input_ids), SIZE, generator=torch.Generator().manual_seed(3))
        return self._attention.branch(h, step)


def step(num_tokens: list[int]) -> Batch:
    layout = KVLayout.of((LayerKV(num_kv_heads=KV_HEADS, head_dim=DIM),))
    rows = FakeRows(layout, [[0] * 40] * len(num_tokens), block_size=16, for_gpu=True)
    (cache,) = rows.kv_caches
    cache.copy_(torch.randn(cache.shape, generator=torch.Generator().manual_seed(4)))
    rows.num_computed = [15 * row for row in range(len(num_tokens))]
    batch, _ = rows.batch(dict(enumerate(num_tokens)))
    return batch


def assert_same(patch: pytest.MonkeyPatch, spec: AttentionSpec, num_tokens: list[int]) -> Layer:
    layers = [Layer(patch, spec, in_one=in_one) for in_one in (True, False)]
    batches = [step(num_tokens) for _ in layers]
    found, wanted = (layer.attended(batch) for layer, batch in zip(layers, batches, strict=True))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    caches = [batch.kv_caches[0] for batch in batches]
    torch.testing.assert_close(*caches)
    assert not torch.equal(caches[0], step(num_tokens).kv_caches[0])  # keys were written
    assert layers[1].backend.num_calls == 1
    return layers[0]


@pytest.mark.parametrize("has_norms", [False, True])
def test_a_step_of_rows_with_one_query_is_one_launch(
    has_norms: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPEC if has_norms else replace(SPEC, qk_norms=None)
    layer = assert_same(monkeypatch, spec, [1, 1, 1])
    assert [attend.num_calls for attend in layer.attends] == [1]
    assert layer.backend.num_calls == 0


@pytest.mark.parametrize("num_tokens", [[7], [1, 5, 1]])
def test_a_step_with_a_prompt_takes_two(
    num_tokens: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = assert_same(monkeypatch, SPEC, num_tokens)
    assert [attend.num_calls for attend in layer.attends] == [0]
    assert layer.backend.num_calls == 1


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, log_length=3),
        replace(SPEC, qk_norms=(LayerNormSpec(size=DIM, eps=1e-2),) * 2),
    ],
    ids=["queries are raised", "other norms"],
)
def test_heads_that_the_fused_kernel_does_not_know_are_never_one_launch(
    spec: AttentionSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = assert_same(monkeypatch, spec, [1, 1, 1])
    assert layer.attends == []
    assert layer.backend.num_calls == 1


@pytest.mark.parametrize(("in_one", "room"), [(True, Attend.block_bytes), (False, 0)])
def test_the_product_before_it_knows_what_it_takes(
    in_one: bool, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms, usual = [], linear_module.fastest_product

    def fastest_product(*given: Any, room: int, **options: Any) -> linear_module.Product:
        rooms.append(room)
        return usual(*given, room=room, **options)

    monkeypatch.setattr(linear_module, "fastest_product", fastest_product)
    Layer(monkeypatch, SPEC, in_one=in_one)
    assert rooms == [room, 0]  # of q, k and v; of the way out


def test_queries_of_some_tokens_of_prompts_are_not_one_launch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their plan is one of rows with one query, but the step has more tokens."""
    layer, batch = Layer(monkeypatch, SPEC, in_one=True), step([1, 7, 5])
    outputs = torch.tensor([0, 7, 12])
    found = layer.attended(batch, outputs)
    wanted = layer.attended(step([1, 7, 5]))
    torch.testing.assert_close(found, wanted[outputs], rtol=1e-4, atol=1e-4)
    assert layer.attends[0].num_calls == 0
