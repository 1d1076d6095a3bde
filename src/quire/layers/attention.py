"""Self-attention: one product for q, k and v, norms and positions, the backend, and the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from quire.attention.backend import AttentionBackend
from quire.layers.forward_pass import ForwardPass
from quire.layers.linear import Linear
from quire.layers.norm import Norm, build_norm
from quire.layers.rope import build_rotation
from quire.layers.spec import AttentionSpec, NormSpec, RopeSpec
from quire.weights.reader import TensorReader

# x [T, N, D], any heads, with their positions put in
Positioning = Callable[[Tensor, ForwardPass], Tensor]


class Attention:
    """One layer's attention."""

    def __init__(
        self,
        spec: AttentionSpec,
        *,
        backend: AttentionBackend,
        rotation: int,  # which of the pass's rotations, if any
        plan: int,  # which of the pass's attention plans
        layer: int,  # which KV cache
    ) -> None:
        heads = {"q": spec.num_heads, "k": spec.num_kv_heads, "v": spec.num_kv_heads}
        sizes = {name: count * spec.head_dim for name, count in heads.items()}
        self.qkv = Linear(spec.hidden_size, sizes, bias=spec.qkv_bias)
        self.out = Linear(sizes["q"], {"o": spec.hidden_size}, bias=spec.out_bias)
        self._head_dim = spec.head_dim
        self._split = (spec.num_heads + spec.num_kv_heads, spec.num_kv_heads)
        self._queries_keys = _build_queries_keys(spec, _positioning(spec, rotation))
        self._backend = backend
        self._plan = plan
        self._layer = layer

    def load(self, reader: TensorReader, prefix: str) -> None:
        self.qkv.load(reader, prefix)
        self.out.load(reader, prefix)
        self._queries_keys.load(reader, prefix)

    def __call__(self, x: Tensor, step: ForwardPass) -> Tensor:
        qkv = self.qkv(x).unflatten(1, (-1, self._head_dim))
        qk, v = qkv.split(self._split, dim=1)
        q, k = self._queries_keys(qk, step)
        kv_cache = step.batch.kv_caches[self._layer]
        attended = self._backend.forward(q, k, v, kv_cache, step.attention_plans[self._plan])
        return self.out(attended.flatten(1))


class QueriesKeys(Protocol):
    """From the product's q and k, side by side as [T, H + K, D], to what attention takes."""

    def load(self, reader: TensorReader, prefix: str) -> None: ...

    def __call__(self, qk: Tensor, step: ForwardPass) -> tuple[Tensor, Tensor]: ...


class PlainQueriesKeys:
    """Positions only, put into q and k at once."""

    def __init__(self, spec: AttentionSpec, position: Positioning) -> None:
        self._split = (spec.num_heads, spec.num_kv_heads)
        self._position = position

    def load(self, reader: TensorReader, prefix: str) -> None:
        """Has no weights."""

    def __call__(self, qk: Tensor, step: ForwardPass) -> tuple[Tensor, Tensor]:
        q, k = self._position(qk, step).split(self._split, dim=1)
        return q, k


class NormedQueriesKeys:
    """Every head of q and of k normed, then positions."""

    def __init__(
        self, spec: AttentionSpec, norms: tuple[NormSpec, NormSpec], position: Positioning
    ) -> None:
        self._split = (spec.num_heads, spec.num_kv_heads)
        self._q_norm: Norm = build_norm(norms[0])
        self._k_norm: Norm = build_norm(norms[1])
        self._position = position

    def load(self, reader: TensorReader, prefix: str) -> None:
        self._q_norm.load(reader, f"{prefix}.q_norm")
        self._k_norm.load(reader, f"{prefix}.k_norm")

    def __call__(self, qk: Tensor, step: ForwardPass) -> tuple[Tensor, Tensor]:
        q, k = qk.split(self._split, dim=1)
        return self._position(self._q_norm(q), step), self._position(self._k_norm(k), step)


def _build_queries_keys(spec: AttentionSpec, position: Positioning) -> QueriesKeys:
    if spec.qk_norms is None:
        return PlainQueriesKeys(spec, position)
    return NormedQueriesKeys(spec, spec.qk_norms, position)


def _positioning(spec: AttentionSpec, rotation: int) -> Positioning:
    if not isinstance(spec.positions, RopeSpec):
        return lambda x, step: x
    rotate = build_rotation(spec.positions, spec.head_dim)
    return lambda x, step: rotate(x, *step.rotations[rotation])
