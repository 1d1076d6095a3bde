"""Rotary positions: pairs of values of a head turned by position * frequency.

``x`` is [T, N, D]; ``cos`` and ``sin`` are float32 [T, 1, D / 2], one column per pair. The rotation
is computed in float32 and returned in the dtype of ``x``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rope_angles(positions: Tensor, frequencies: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """``scale`` times cos and sin of positions [T] * frequencies [D / 2]: float32 [T, 1, D / 2]."""
    angles = positions.float()[:, None, None] * frequencies
    return angles.cos().mul_(scale), angles.sin().mul_(scale)


def rotate_half(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs are (i, i + D/2)."""
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    half = first.shape[-1]
    torch.mul(first, cos, out=turned[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=turned[..., half:]).addcmul_(first, sin)
    return turned.to(x.dtype)


def rotate_interleaved(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs are (2i, 2i + 1)."""
    # A copy: complex numbers must begin at an even offset, which part of a head may not do.
    pairs = x.float().unflatten(-1, (-1, 2)).clone(memory_format=torch.contiguous_format)
    turned = torch.view_as_complex(pairs).mul_(torch.complex(cos, sin))
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)
