"""A package `flashinfer` with what Quire calls of it: documented meaning, and its demands asserted.

Written from the signatures and docstrings of flashinfer-python 0.7.2.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from quire.kernels.reference.attention import paged_attention


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `import flashinfer` find the fake."""
    package = ModuleType("flashinfer")
    package.__spec__ = ModuleSpec("flashinfer", None)
    package.BatchPrefillWithPagedKVCacheWrapper = Prefill  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flashinfer", package)


class Prefill:
    """`BatchPrefillWithPagedKVCacheWrapper`."""

    def __init__(self, float_workspace_buffer: Tensor, kv_layout: str = "NHD") -> None:
        assert kv_layout == "NHD"
        assert float_workspace_buffer.dtype == torch.uint8
        self._planned: dict[str, Any] = {}

    def plan(
        self,
        qo_indptr: Tensor,
        paged_kv_indptr: Tensor,
        paged_kv_indices: Tensor,
        paged_kv_last_page_len: Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim_qk: int,
        page_size: int,
        *,
        causal: bool = False,
        sm_scale: float | None = None,
        window_left: int = -1,
        q_data_type: torch.dtype = torch.float16,
        kv_data_type: torch.dtype | None = None,
        seq_lens: Tensor | None = None,
    ) -> None:
        given = (qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, seq_lens)
        for values in given:
            assert values is not None
            assert values.dtype == torch.int32
        num_rows = len(qo_indptr) - 1
        assert len(paged_kv_indptr) == num_rows + 1
        assert len(paged_kv_indices) == paged_kv_indptr[-1]
        assert qo_indptr[0] == paged_kv_indptr[0] == 0
        assert causal
        assert q_data_type == kv_data_type
        num_pages = paged_kv_indptr.diff()
        lengths = (num_pages - 1) * page_size + paged_kv_last_page_len
        assert lengths.equal(seq_lens)
        table = torch.zeros(num_rows, int(num_pages.max()), dtype=torch.int32)
        for row, pages in enumerate(paged_kv_indices.split(num_pages.tolist())):
            table[row, : len(pages)] = pages
        self._planned = {
            "block_table": table,
            "query_start": qo_indptr,
            "seq_lens": lengths,
            "scale": sm_scale,
            "window": None if window_left < 0 else window_left + 1,
        }
        self._shape = (int(qo_indptr[-1]), num_qo_heads, head_dim_qk)
        self._cache_shape = (page_size, num_kv_heads, head_dim_qk)
        self._dtype = q_data_type

    def run(self, q: Tensor, paged_kv_cache: tuple[Tensor, Tensor], *, out: Tensor) -> Tensor:
        assert q.shape == out.shape == self._shape
        assert q.dtype == out.dtype == self._dtype
        for cache in paged_kv_cache:
            assert cache.shape[1:] == self._cache_shape
            assert cache.dtype == self._dtype
        out.copy_(paged_attention(q, torch.stack(paged_kv_cache), **self._planned))
        return out
