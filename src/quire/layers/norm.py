"""Normalisation over the last dimension."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from quire.kernels.selection import RMS, Kernels, kernels_for
from quire.layers.spec import LayerNormSpec, NormSpec, RMSNormSpec
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
        """What a kernel needs that has this norm inside."""
        return self.weight, self._spec.eps


class OffsetRMSNorm(RMSNorm):
    """RMS norm whose stored weight is an offset from a constant; the sum is kept in float32."""

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


def build_norm(spec: NormSpec) -> Norm:
    if isinstance(spec, LayerNormSpec):
        return LayerNorm(spec)
    return RMSNorm(spec) if spec.weight_offset == 0.0 else OffsetRMSNorm(spec)
