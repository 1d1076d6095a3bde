"""Self-attention: one product for q, k and v; heads and cache; the backend; the output product."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from quire.attention.backend import AttentionBackend, AttentionProblem
from quire.attention.one_launch import OneLaunch, one_launch
from quire.layers.forward_pass import ForwardPass
from quire.layers.heads import FusedHeads, Heads, load_heads
from quire.layers.linear import Linear
from quire.layers.norm import Norm
from quire.layers.normed import Map, normed_product
from quire.layers.spec import AttentionSpec
from quire.weights.reader import TensorReader


class Attention:
    """h += out(attention of qkv(norm(h)))."""

    def __init__(
        self,
        spec: AttentionSpec,
        *,
        problem: AttentionProblem,
        backend: AttentionBackend,
        rotation: int,  # which of the pass's rotations, if any
        plan: int,  # which of the pass's attention plans
        layer: int,  # which KV cache
    ) -> None:
        heads = {"q": spec.num_heads, "k": spec.num_kv_heads, "v": spec.num_kv_heads}
        sizes = {name: count * spec.head_dim for name, count in heads.items()}
        self.qkv = Linear(spec.hidden_size, sizes, bias=spec.qkv_bias)
        self.out = Linear(sizes["q"], {"o": spec.hidden_size}, bias=spec.out_bias)
        self._spec = spec
        self._qkv: Map  # h [T, E] -> q, k and v side by side [T, (H + 2 K) D]
        self._heads: Heads
        self._one_launch: OneLaunch | None  # does the work of heads and backend, where it can
        self._problem = problem
        self._backend = backend
        self._attend: Callable[..., Tensor]
        self._rotation = rotation
        self._plan = plan
        self._layer = layer

    def load(self, reader: TensorReader, prefix: str, norm: Norm | None) -> None:
        self._heads = heads = load_heads(self._spec, self._rotation, reader, prefix)
        self._one_launch = attend = None
        if isinstance(heads, FusedHeads):
            self._one_launch = attend = one_launch(
                self._problem, heads.shape, heads.norms, reader.device
            )
        self.qkv.load(reader, prefix, room=0 if attend is None else attend.block_bytes)
        self.out.load(reader, prefix)
        self._qkv = _clipped(normed_product(norm, self.qkv.product), self._spec.clip)
        self._attend = self._backend.forward
        if self._spec.sinks:
            shape = (self._spec.num_heads,)
            sinks = reader.read(f"{prefix}.sinks", shape, dtype=torch.float32)
            self._attend = partial(self._backend.forward, sinks=sinks)

    def add_to(self, h: Tensor, step: ForwardPass, target: Tensor) -> None:
        self.out.add_to(self._attended(h, step), target)

    def branch(self, h: Tensor, step: ForwardPass) -> Tensor:
        """What ``add_to`` would add."""
        return self.out(self._attended(h, step))

    def _attended(self, h: Tensor, step: ForwardPass) -> Tensor:
        """Attention [T, H D] before the output product; only of the step's `outputs`, if it has
        any. Keys and values of all tokens are written."""
        batch = step.batch
        kv_cache = batch.kv_caches[self._layer]
        slots = batch.groups[batch.layer_groups[self._layer]].slot_mapping
        qkv, plan = self._qkv(h), step.attention_plans[self._plan]
        attended = None
        if self._one_launch is not None and step.outputs is None:
            rotation = step.rotations[self._rotation]
            attended = self._one_launch(qkv, *rotation, kv_cache, slots, plan)
        if attended is None:
            q = self._heads(qkv, kv_cache, slots, step)
            attended = self._attend(step.narrowed(q), kv_cache, plan)
        return attended.flatten(1)


def _clipped(qkv: Map, limit: float | None) -> Map:
    return qkv if limit is None else lambda h: qkv(h).clamp_(-limit, limit)
