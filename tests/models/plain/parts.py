"""The mathematics of a decoder in float64, written out: one text, no cache, no batches.

Independent of the package: what a checkpoint's makers wrote down, from tensors under their names.
A bias is added where the checkpoint has one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]
Function = Callable[[Tensor], Tensor]


def linear(t: Tensors, name: str, x: Tensor) -> Tensor:
    """Weights are (out, in)."""
    y = x @ t[f"{name}.weight"].T
    return y + t[f"{name}.bias"] if f"{name}.bias" in t else y


def conv1d(t: Tensors, name: str, x: Tensor) -> Tensor:
    """Weights are (in, out)."""
    return x @ t[f"{name}.weight"] + t[f"{name}.bias"]


def rms_norm(t: Tensors, name: str, eps: float) -> Function:
    return lambda x: x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * t[f"{name}.weight"]


def layer_norm(t: Tensors, name: str, eps: float) -> Function:
    """Weight and bias where the checkpoint has them."""

    def norm(x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        y = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        return y * t.get(f"{name}.weight", torch.tensor(1.0)) + t.get(f"{name}.bias", 0.0)

    return norm


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def rope(
    x: Tensor,
    *,
    theta: float,
    dims: int | None = None,
    adjacent: bool = False,
    position_scale: float = 1.0,
) -> Tensor:
    """x [T, N, D]: dimension j turns with j + dims / 2, or 2 j with 2 j + 1; the rest passes."""
    dims = x.shape[-1] if dims is None else dims
    y = x.clone()
    for j in range(dims // 2):
        one, other = (2 * j, 2 * j + 1) if adjacent else (j, j + dims // 2)
        positions = torch.arange(len(x), dtype=torch.float64)[:, None] * position_scale
        angle = positions * theta ** (-2 * j / dims)
        y[..., one] = x[..., one] * angle.cos() - x[..., other] * angle.sin()
        y[..., other] = x[..., other] * angle.cos() + x[..., one] * angle.sin()
    return y


def alibi_slopes(num_heads: int, max_bias: float = 8.0) -> list[float]:
    n = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-max_bias * i / n) for i in range(1, n + 1)]
    extra = range(1, num_heads - n + 1)
    return slopes + [2 ** (-max_bias * (2 * i - 1) / (2 * n)) for i in extra]


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, slopes: Sequence[float] | None = None
) -> Tensor:
    """q [T, H, D], k and v [T, K, D] -> [T, H * D]; query head h reads KV head h // (H / K)."""
    length, num_heads, _ = q.shape
    group = num_heads // k.shape[1]
    distance = torch.arange(length)[:, None] - torch.arange(length)[None]
    heads = []
    for h in range(num_heads):
        scores = q[:, h] @ k[:, h // group].T * scale
        if slopes is not None:
            scores = scores - slopes[h] * distance
        scores = scores.masked_fill(distance < 0, -math.inf)
        heads.append(scores.softmax(-1) @ v[:, h // group])
    return torch.cat(heads, dim=-1)


def heads(x: Tensor, head_dim: int) -> Tensor:
    """[T, N * D] -> [T, N, D]."""
    return x.reshape(len(x), -1, head_dim)
