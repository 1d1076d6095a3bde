"""How gate and up of an expert are joined, inside its kernels."""

from __future__ import annotations

import triton
import triton.language as tl

from quire.kernels.triton.activation import NAMES, activate

GATINGS = (*NAMES, "swiglu_oss")
_SWIGLU_OSS = tl.constexpr(len(NAMES))


@triton.jit
def join(gate, up, KIND: tl.constexpr):
    """Gating ``GATINGS[KIND]`` of float32 values."""
    if KIND == _SWIGLU_OSS:
        gate = tl.minimum(gate, 7.0)
        up = tl.minimum(tl.maximum(up, -7.0), 7.0)
        return gate * tl.sigmoid(1.702 * gate) * (up + 1.0)
    else:
        return activate(gate, KIND) * up
