"""What q, k and v go through before attention: norms of heads, positions, the write to the cache.

Two forms of the same meaning, chosen when weights are loaded: step by step, with every option; or
one fused kernel, where the device has it and it knows the layer's options.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from quire.kernels.reference.attention import write_kv
from quire.kernels.selection import MakeStoreHeads, kernels_for
from quire.kernels.shapes import HeadsShape
from quire.layers.forward_pass import ForwardPass
from quire.layers.norm import RMSNorm, build_norm
from quire.layers.rope import build_rotation
from quire.layers.spec import AttentionSpec, HeadNormSpec, RopeSpec
from quire.weights.reader import TensorReader

# x [T, N, D], any heads -> the same with positions applied
Positioning = Callable[[Tensor, ForwardPass], Tensor]
NormHeads = Callable[[Tensor], Tensor]  # x [T, N, D], all heads of q or of k


class Heads(Protocol):
    """Takes qkv [T, (H + 2 K) D], writes k and v to the cache and returns q [T, H, D]."""

    def __call__(self, qkv: Tensor, kv_cache: Tensor, slots: Tensor, step: ForwardPass) -> Tensor:
        """``slots`` [T]: where in the cache each token's key and value go."""
        ...


class StepwiseHeads:
    """One operation after another."""

    def __init__(
        self, spec: AttentionSpec, norms: tuple[NormHeads, NormHeads] | None, rotation: int
    ) -> None:
        self._head_dim = spec.head_dim
        self._split = (spec.num_heads, spec.num_kv_heads, spec.num_kv_heads)
        self._split_qk = (spec.num_heads + spec.num_kv_heads, spec.num_kv_heads)
        self._position = _positioning(spec, rotation)
        self._queries_keys = self._plain if norms is None else self._normed
        self._norms = norms

    def __call__(self, qkv: Tensor, kv_cache: Tensor, slots: Tensor, step: ForwardPass) -> Tensor:
        qk, v = qkv.unflatten(1, (-1, self._head_dim)).split(self._split_qk, dim=1)
        q, k = self._queries_keys(qk, step)
        write_kv(k, v, kv_cache, slots)
        return q

    def _plain(self, qk: Tensor, step: ForwardPass) -> tuple[Tensor, Tensor]:
        """Without norms: positions are applied to q and k at once."""
        q, k = self._position(qk, step).split(self._split[:2], dim=1)
        return q, k

    def _normed(self, qk: Tensor, step: ForwardPass) -> tuple[Tensor, Tensor]:
        assert self._norms is not None
        q, k = qk.split(self._split[:2], dim=1)
        q_norm, k_norm = self._norms
        return self._position(q_norm(q), step), self._position(k_norm(k), step)


class FusedHeads:
    """Norms, positions and the write in one kernel."""

    def __init__(
        self,
        make_store: MakeStoreHeads,
        shape: HeadsShape,
        norms: tuple[Tensor, ...] | None,
        rotation: int,
    ) -> None:
        """``norms``: the RMS weights of q and k, if any."""
        self.shape, self.norms = shape, norms
        self._store = make_store(shape, norms)
        self._rotation = rotation

    def __call__(self, qkv: Tensor, kv_cache: Tensor, slots: Tensor, step: ForwardPass) -> Tensor:
        cos, sin = step.rotations[self._rotation]
        return self._store(qkv, cos, sin, kv_cache, slots)


class LogScaledHeads:
    """Multiplies queries beyond position ``length`` by the logarithm, to that base, of theirs.

    Su 2021 (https://kexue.fm/archives/8823): attention stays as sharp as at the trained length.
    """

    def __init__(self, heads: Heads, length: int) -> None:
        self._heads = heads
        self._factor = 1.0 / math.log(length)

    def __call__(self, qkv: Tensor, kv_cache: Tensor, slots: Tensor, step: ForwardPass) -> Tensor:
        q = self._heads(qkv, kv_cache, slots, step)
        raised = (step.batch.positions + 1).log().mul_(self._factor).clamp_(min=1.0)
        return q * raised.to(q.dtype)[:, None, None]


def load_heads(spec: AttentionSpec, rotation: int, reader: TensorReader, prefix: str) -> Heads:
    """``rotation``: which of the pass's rotations, if any."""
    heads = _load_heads(spec, rotation, reader, prefix)
    return heads if spec.log_length is None else LogScaledHeads(heads, spec.log_length)


def _load_heads(spec: AttentionSpec, rotation: int, reader: TensorReader, prefix: str) -> Heads:
    norms = _load_norms(spec, reader, prefix)
    make_store = kernels_for(reader.device).store_heads
    positions = spec.positions
    if make_store is None or not isinstance(positions, RopeSpec):
        return StepwiseHeads(spec, norms, rotation)
    weights = None
    if norms is not None:
        # by exact type: offset norms have float32 weights, and norms over all heads are functions
        if not all(type(norm) is RMSNorm for norm in norms):
            return StepwiseHeads(spec, norms, rotation)
        weights = tuple(norm.weight for norm in norms if isinstance(norm, RMSNorm))
    shape = HeadsShape(
        num_heads=spec.num_heads,
        num_kv_heads=spec.num_kv_heads,
        head_dim=spec.head_dim,
        rotary_dim=positions.dim,
        is_interleaved=positions.style == "interleaved",
        eps=_eps(spec),
    )
    return FusedHeads(make_store, shape, weights, rotation)


def _load_norms(
    spec: AttentionSpec, reader: TensorReader, prefix: str
) -> tuple[NormHeads, NormHeads] | None:
    if spec.qk_norms is None:
        return None
    q_norm, k_norm = spec.qk_norms
    return (
        _load_norm(q_norm, spec.head_dim, reader, f"{prefix}.q_norm"),
        _load_norm(k_norm, spec.head_dim, reader, f"{prefix}.k_norm"),
    )


def _load_norm(spec: HeadNormSpec, head_dim: int, reader: TensorReader, prefix: str) -> NormHeads:
    norm = build_norm(spec)
    norm.load(reader, prefix)
    if spec.size == head_dim:
        return norm
    return lambda heads: norm(heads.flatten(1)).unflatten(1, (-1, head_dim))


def _eps(spec: AttentionSpec) -> tuple[float, float]:
    if spec.qk_norms is None:
        return 0.0, 0.0
    q_norm, k_norm = spec.qk_norms
    return q_norm.eps, k_norm.eps


def _positioning(spec: AttentionSpec, rotation: int) -> Positioning:
    if not isinstance(spec.positions, RopeSpec):
        return lambda x, step: x
    rotate = build_rotation(spec.positions, spec.head_dim)
    return lambda x, step: rotate(x, *step.rotations[rotation])
