"""What happens to q, k and v between their product and the backend, by the formulas."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quire.attention.backend import AttentionProblem
from quire.batch import Batch
from quire.kv_layout import KVLayout, LayerKV
from quire.layers.attention import Attention
from quire.layers.forward_pass import ForwardPass
from quire.layers.norm import build_norm
from quire.layers.spec import AttentionSpec, HeadsLayerNormSpec, LayerNormSpec, RMSNormSpec
from tests.fakes.batches import FakeRows
from tests.unit.layers.readers import MemoryReader

_SIZE, _HEADS, _KV_HEADS, _DIM = 6, 4, 2, 8
_SPEC = AttentionSpec(
    hidden_size=_SIZE,
    num_heads=_HEADS,
    num_kv_heads=_KV_HEADS,
    head_dim=_DIM,
    scale=1.0,
    positions=None,
)
_TOKENS = 7


class Echo:
    """Attends to nothing: what a backend is given as q comes back."""

    @staticmethod
    def why_not(problem: AttentionProblem) -> list[str]:
        return []

    @classmethod
    def build(cls, problem: AttentionProblem) -> Echo:
        return cls()

    def plan(self, batch: Batch, group: int) -> Any:
        return None

    def forward(self, q: Tensor, kv_cache: Tensor, plan: Any) -> Tensor:
        return q


class Run:
    """One step of ``_TOKENS`` tokens: the heads' inputs, and what became of them."""

    def __init__(self, spec: AttentionSpec) -> None:
        self.reader = MemoryReader.random(spec.parameters(), "a")
        problem = AttentionProblem(
            num_heads=spec.num_heads,
            num_kv_heads=spec.num_kv_heads,
            head_dim=spec.head_dim,
            scale=spec.scale,
            dtype=torch.float32,
            device="cpu",
        )
        attention = Attention(spec, problem=problem, backend=Echo(), rotation=-1, plan=0, layer=0)
        attention.load(self.reader, "a", None)
        layout = KVLayout.of((LayerKV(num_kv_heads=_KV_HEADS, head_dim=_DIM),))
        batch, _ = FakeRows(layout, [list(range(_TOKENS))]).batch({0: _TOKENS})
        step = ForwardPass(batch=batch, rotations=(), attention_plans=(None,))
        h = torch.randn(_TOKENS, _SIZE, generator=torch.Generator().manual_seed(3))
        self.raw = {
            part: F.linear(
                h,
                self.reader.tensors[f"a.{part}.weight"],
                self.reader.tensors.get(f"a.{part}.bias"),
            ).unflatten(1, (-1, _DIM))
            for part in "qkv"
        }
        self.added = attention.branch(h, step)
        before = h.clone()
        attention.add_to(h, step, h)
        torch.testing.assert_close(h, before + self.added)
        target = torch.zeros(2, _SIZE)
        outputs = torch.tensor([_TOKENS - 1, 1])
        attention.add_to(before, replace(step, outputs=outputs), target)
        torch.testing.assert_close(target, self.added[outputs])
        slots = batch.groups[0].slot_mapping
        self.k, self.v = (cache.flatten(0, 1)[slots] for cache in batch.kv_caches[0].unbind(0))

    def check(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        torch.testing.assert_close(self.k, k)
        torch.testing.assert_close(self.v, v)
        out = self.reader.tensors["a.o.weight"]
        torch.testing.assert_close(self.added, F.linear(q.flatten(1), out))


def test_plain() -> None:
    run = Run(replace(_SPEC, qkv_bias=True))
    run.check(**run.raw)


def test_clip_holds_all_three_after_the_bias() -> None:
    run = Run(replace(_SPEC, qkv_bias=True, clip=1.5))
    assert any(bool((part.abs() > 1.5).any()) for part in run.raw.values())
    run.check(**{part: value.clamp(-1.5, 1.5) for part, value in run.raw.items()})


def _norms(run: Run, spec: AttentionSpec) -> list[Any]:
    assert spec.qk_norms is not None
    norms = [build_norm(norm) for norm in spec.qk_norms]
    for norm, part in zip(norms, "qk", strict=True):
        norm.load(run.reader, f"a.{part}_norm")
    return norms


def test_norms_of_each_head() -> None:
    norm = RMSNormSpec(size=_DIM, eps=1e-2)
    spec = replace(_SPEC, qk_norms=(norm, LayerNormSpec(size=_DIM, eps=1e-2)))
    run = Run(spec)
    q_norm, k_norm = _norms(run, spec)
    run.check(q_norm(run.raw["q"]), k_norm(run.raw["k"]), run.raw["v"])


def test_norms_of_all_heads_together() -> None:
    norms = [RMSNormSpec(size=count * _DIM, eps=1e-2) for count in (_HEADS, _KV_HEADS)]
    spec = replace(_SPEC, qk_norms=(norms[0], norms[1]))
    run = Run(spec)
    weights = [run.reader.tensors[f"a.{part}_norm.weight"] for part in "qk"]
    q, k = (
        F.rms_norm(run.raw[part].flatten(1), weight.shape, weight, 1e-2).unflatten(1, (-1, _DIM))
        for part, weight in zip("qk", weights, strict=True)
    )
    run.check(q, k, run.raw["v"])


def test_every_head_has_a_norm_of_its_own() -> None:
    norms = [HeadsLayerNormSpec(num_heads=n, size=_DIM, eps=1e-2) for n in (_HEADS, _KV_HEADS)]
    spec = replace(_SPEC, qk_norms=(norms[0], norms[1]))
    run = Run(spec)
    q, k = (
        torch.stack(
            [
                F.layer_norm(run.raw[part][:, head], (_DIM,), weight, None, 1e-2)
                for head, weight in enumerate(run.reader.tensors[f"a.{part}_norm.weight"])
            ],
            dim=1,
        )
        for part in "qk"
    )
    run.check(q, k, run.raw["v"])


@pytest.mark.parametrize("length", [3, 100])
def test_queries_beyond_the_trained_length_are_raised(length: int) -> None:
    run = Run(replace(_SPEC, log_length=length))
    factors = [max(1.0, math.log(p + 1) / math.log(length)) for p in range(_TOKENS)]
    q = run.raw["q"] * torch.tensor(factors)[:, None, None]
    run.check(q, run.raw["k"], run.raw["v"])
