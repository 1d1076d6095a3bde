"""Normalisation over the last dimension."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from quire.kernels.selection import Kernels, kernels_for
from quire.kernels.shapes import RMS
from quire.layers.spec import HeadNormSpec, HeadsLayerNormSpec, LayerNormSpec, RMSNormSpec
from quire.weights.reader import TensorReader


class Norm(Protocol):
    """A norm over the last dimension."""

    def load(self, reader: TensorReader, prefix: str) -> None: ...

    def __call__(self, x: Tensor) -> Tensor: ...


class RMSNorm:
    """Root-mean-square norm with a weight."""

    def __init__(self, spec: RMSNormSpec) -> None:
        self._spec = spec
        self.weight: Tensor
        self._kernels: Kernels

    def load(self, reader: TensorReader, prefix: str) -> None:
        self._kernels = kernels_for(reader.device)
        self.weight = reader.read(f"{prefix}.weight", (self._spec.size,))

    def __call__(self, x: Tensor) -> Tensor:
        return self._kernels.rms_norm(x, self.weight, self._spec.eps)

    @property
    def parameters(self) -> RMS:
        """Weight and eps, for a kernel that computes this norm itself."""
        return self.weight, self._spec.eps


class OffsetRMSNorm(RMSNorm):
    """RMS norm whose stored weight is an offset from a constant; their sum is kept in float32."""

    def load(self, reader: TensorReader, prefix: str) -> None:
        super().load(reader, prefix)
        self.weight = self._spec.weight_offset + self.weight.float()


class LayerNorm:
    """Layer norm; weight and bias may be missing."""

    def __init__(self, spec: LayerNormSpec) -> None:
        self._spec = spec
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None
        self._kernels: Kernels

    def load(self, reader: TensorReader, prefix: str) -> None:
        self._kernels = kernels_for(reader.device)
        if self._spec.weight:
            self._weight = reader.read(f"{prefix}.weight", (self._spec.size,))
        if self._spec.bias:
            self._bias = reader.read(f"{prefix}.bias", (self._spec.size,))

    def __call__(self, x: Tensor) -> Tensor:
        return self._kernels.layer_norm(x, self._weight, self._bias, self._spec.eps)


class OffsetLayerNorm(LayerNorm):
    """Layer norm whose stored weight is an offset from a constant; their sum is kept in float32."""

    def load(self, reader: TensorReader, prefix: str) -> None:
        super().load(reader, prefix)
        assert self._weight is not None
        self._weight = self._spec.weight_offset + self._weight.float()
        self._bias = None if self._bias is None else self._bias.float()


class HeadsLayerNorm:
    """Layer norm over each head, with a weight for every head."""

    def __init__(self, spec: HeadsLayerNormSpec) -> None:
        self._spec = spec
        self._weight: Tensor  # [N, D], float32
        self._kernels: Kernels

    def load(self, reader: TensorReader, prefix: str) -> None:
        self._kernels = kernels_for(reader.device)
        shape = (self._spec.num_heads, self._spec.size)
        self._weight = reader.read(f"{prefix}.weight", shape).float()

    def __call__(self, x: Tensor) -> Tensor:
        """x [T, N, D]."""
        normed = self._kernels.layer_norm(x.float(), None, None, self._spec.eps)
        return normed.mul_(self._weight).to(x.dtype)


class NoNorm:
    """Returns its input, where a model has no norm."""

    def load(self, reader: TensorReader, prefix: str) -> None:
        pass

    def __call__(self, x: Tensor) -> Tensor:
        return x


def build_norm(spec: HeadNormSpec | None) -> Norm:
    if spec is None:
        return NoNorm()
    if isinstance(spec, HeadsLayerNormSpec):
        return HeadsLayerNorm(spec)
    if isinstance(spec, LayerNormSpec):
        return LayerNorm(spec) if spec.weight_offset == 0.0 else OffsetLayerNorm(spec)
    return RMSNorm(spec) if spec.weight_offset == 0.0 else OffsetRMSNorm(spec)
