"""The module of FlashAttention 3 with the one function that Quire calls, its demands asserted.

Written from the signature and docstring of `flash_attn_with_kvcache`.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from torch import Tensor

from quire.kernels.reference.attention import paged_attention


def install(monkeypatch: pytest.MonkeyPatch, name: str = "flash_attn_interface") -> None:
    """Make ``import name`` find the fake."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.flash_attn_with_kvcache = flash_attn_with_kvcache  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)


def flash_attn_with_kvcache(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    *,
    cache_seqlens: Tensor,
    page_table: Tensor,
    cu_seqlens_q: Tensor,
    max_seqlen_q: int,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
) -> Tensor:
    num_rows = len(cache_seqlens)
    assert q.dtype in (torch.float16, torch.bfloat16)
    assert q.dim() == 3
    assert q.stride(-1) == k_cache.stride(-1) == v_cache.stride(-1) == 1
    assert q.dtype == k_cache.dtype == v_cache.dtype
    assert k_cache.shape == v_cache.shape
    assert k_cache.dim() == 4
    for values in (cache_seqlens, page_table, cu_seqlens_q):
        assert values.dtype == torch.int32
        assert values.stride(-1) == 1
    assert len(page_table) == num_rows
    assert len(cu_seqlens_q) == num_rows + 1
    assert int(cu_seqlens_q.diff().max()) <= max_seqlen_q
    assert causal
    left, right = window_size
    assert (left, right) == (-1, -1) or (left >= 0 and right == 0)
    return paged_attention(
        q,
        torch.stack((k_cache, v_cache)),
        page_table,
        cu_seqlens_q,
        cache_seqlens,
        scale=q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale,
        window=None if left < 0 else left + 1,
        soft_cap=softcap or None,
    )
