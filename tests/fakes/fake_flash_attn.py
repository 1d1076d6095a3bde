"""FlashAttention 3: its module, and the one operation that Quire calls, its demands asserted.

Written from the operation's schema and the docstring of `flash_attn_with_kvcache`.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

from quire.kernels.reference.attention import paged_attention

TILE = 176  # keys that a program multiplies at once, behind the last one too


class FakeFlashAttn(ModuleType):
    """The module, and how often it was called."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.num_calls = 0

    def fwd(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        out: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        seqused_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        softmax_scale: float | None = None,
        is_causal: bool = False,
        window_size_left: int = -1,
        window_size_right: int = -1,
        softcap: float = 0.0,
        num_splits: int = 0,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Rows of keys begin at ``cu_seqlens_k``; ``seqused_k`` of each are used."""
        self.num_calls += 1
        num_rows = len(seqused_k)
        assert q.dtype in (torch.float16, torch.bfloat16)
        assert q.dim() == k.dim() == 3
        assert q.dtype == k.dtype == v.dtype
        assert k.shape == v.shape
        assert q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
        for values in (cu_seqlens_q, cu_seqlens_k, seqused_k):
            assert values.dtype == torch.int32
            assert values.is_contiguous()
        assert len(cu_seqlens_q) == len(cu_seqlens_k) == num_rows + 1
        assert int(cu_seqlens_q[-1]) == len(q)
        assert int(cu_seqlens_k[-1]) == len(k)
        assert int(cu_seqlens_q.diff().max()) <= max_seqlen_q
        assert int(seqused_k.max()) <= max_seqlen_k
        assert bool((seqused_k <= cu_seqlens_k.diff()).all())
        assert is_causal
        assert num_splits == 1, "parts of keys need memory that no one has counted"
        assert out.shape == q.shape
        left, right = window_size_left, window_size_right
        assert (left, right) == (-1, -1) or (left >= 0 and right == 0)
        for first, count in zip(cu_seqlens_k.tolist(), seqused_k.tolist(), strict=False):
            read = slice(first, first + -(-count // TILE) * TILE)
            assert k[read].isfinite().all()
            assert v[read].isfinite().all()
        # A token a page.
        table = torch.zeros(num_rows, max_seqlen_k, dtype=torch.int32)
        for row, (first, count) in enumerate(zip(cu_seqlens_k, seqused_k, strict=False)):
            table[row, :count] = torch.arange(int(first), int(first) + int(count))
        out[:] = paged_attention(
            q,
            torch.stack((k, v)).unsqueeze(2),
            table,
            cu_seqlens_q,
            seqused_k,
            scale=q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale,
            window=None if left < 0 else left + 1,
            soft_cap=softcap or None,
        )
        return out, None, None, None


def install(monkeypatch: pytest.MonkeyPatch, name: str = "flash_attn_interface") -> FakeFlashAttn:
    """Make ``import name`` find the fake, and its operations where the real one registers them."""
    module = FakeFlashAttn(name)
    monkeypatch.setitem(sys.modules, name, module)
    namespace = {"flash_attn_interface": "flash_attn_3", "fa3_fwd_interface": "fa3_fwd"}[name]
    monkeypatch.setattr(torch.ops, namespace, SimpleNamespace(fwd=module.fwd), raising=False)
    return module
