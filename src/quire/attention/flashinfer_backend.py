"""Paged attention by FlashInfer, where it is installed: its planned prefill for eager prompts.

The prefill is planned on the host, so mixed steps in a graph go to our own kernels. So do decode
rows: on an H200 ours took 53 us for 256 rows of 192 tokens, FlashInfer's XQA 95 us; for 64 rows of
4,096 tokens both took about as long.

`why_not` tells which problems it takes; whether its results are right, `start_up_check` finds out.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from quire import platform
from quire.attention.backend import AttentionBackend, AttentionProblem
from quire.attention.half_precision import reasons_of_pages, reasons_of_shape
from quire.attention.long_prompts import LongPromptAttention
from quire.batch import Batch
from quire.pinned_memory import pinned

_OLDEST_GENERATION = 8  # major compute capability
_HEAD_DIMS = (64, 128, 256)

_PREFILL_SCRATCH_BYTES = 128 << 20  # as FlashInfer recommends
_PREFILLS = 2  # one is planned while the other's plan is still being copied to the device


class FlashInferAttention(LongPromptAttention):
    """The backend ``flashinfer``. It takes every prompt, however short."""

    masked_tile = 384  # a multiple of 96 and 128, the sizes that its tiles are known to have

    def __init__(self, problem: AttentionProblem, rest: AttentionBackend) -> None:
        super().__init__(problem, rest)
        scratch = torch.empty(_PREFILL_SCRATCH_BYTES, dtype=torch.uint8, device=problem.device)
        self._prefills = [PlannedPrefill(problem, scratch) for _ in range(_PREFILLS)]

    @staticmethod
    def why_not(problem: AttentionProblem) -> list[str]:
        reasons = []
        if find_spec("flashinfer") is None:
            reasons.append("flashinfer cannot be imported (pip install flashinfer-python)")
        if problem.device == "cuda" and platform.compute_capability()[0] < _OLDEST_GENERATION:
            reasons.append(f"it needs a compute capability of {_OLDEST_GENERATION} or more")
        if problem.head_dim not in _HEAD_DIMS:
            reasons.append(f"heads of {problem.head_dim} values; it takes {_listed(_HEAD_DIMS)}")
        return reasons_of_shape(problem) + reasons_of_pages(problem) + reasons

    def are_long(self, query_lens: np.ndarray, seq_lens: np.ndarray) -> np.ndarray:
        long: np.ndarray = query_lens > 1
        return long

    def plan_prompts(self, batch: Batch, block_table: Tensor, rows: slice) -> list[PlannedPrefill]:
        prefill = self._prefills.pop(0)
        self._prefills.append(prefill)
        prefill.plan(batch, block_table, rows)
        return [prefill]

    def attend(self, out: Tensor, q: Tensor, kv_cache: Tensor, part: PlannedPrefill) -> None:
        part.run(out, q, kv_cache)


class PlannedPrefill:
    """FlashInfer's prefill: planned once per step, run once per layer.

    Its planner writes to a host buffer, whose copy to the device waits for everything enqueued so
    far; so it must not plan again before that copy is done.
    """

    def __init__(self, problem: AttentionProblem, scratch: Tensor) -> None:
        wrapper = import_module("flashinfer").BatchPrefillWithPagedKVCacheWrapper
        self._wrapper = wrapper(scratch, kv_layout="NHD")
        self._problem = problem
        self._tokens: slice  # of the rows that are planned
        self._wait_for_copies: Callable[[], object] = _nothing

    def plan(self, batch: Batch, block_table: Tensor, rows: slice) -> None:
        self._wait_for_copies()  # sync: those of this object's last plan
        problem, device = self._problem, block_table.device
        query_start = batch.query_start_cpu[rows.start : rows.stop + 1]
        self._tokens = slice(int(query_start[0]), int(query_start[-1]))
        lengths = batch.seq_lens_cpu[rows]
        num_blocks = (lengths + problem.block_size - 1) // problem.block_size
        block_start = torch.zeros(len(lengths) + 1, dtype=torch.int32)
        torch.cumsum(num_blocks, 0, out=block_start[1:])
        row = torch.arange(rows.start, rows.stop).repeat_interleave(num_blocks)
        column = torch.arange(len(row)) - block_start[:-1].repeat_interleave(num_blocks)
        places = pinned(torch.stack((row, column)), device).to(device, non_blocking=True)
        self._wrapper.plan(
            qo_indptr=pinned(query_start - query_start[0], device),
            paged_kv_indptr=pinned(block_start, device),
            paged_kv_indices=block_table[places[0], places[1]],
            paged_kv_last_page_len=pinned(lengths - (num_blocks - 1) * problem.block_size, device),
            num_qo_heads=problem.num_heads,
            num_kv_heads=problem.num_kv_heads,
            head_dim_qk=problem.head_dim,
            page_size=problem.block_size,
            causal=True,
            sm_scale=problem.scale,
            window_left=-1 if problem.window is None else problem.window - 1,
            q_data_type=problem.dtype,
            kv_data_type=problem.dtype,
            seq_lens=pinned(lengths, device),
        )
        self._wait_for_copies = _mark(device)

    def run(self, out: Tensor, q: Tensor, kv_cache: Tensor) -> None:
        queries = q[self._tokens].contiguous()
        self._wrapper.run(queries, (kv_cache[0], kv_cache[1]), out=out[self._tokens])


def _mark(device: torch.device) -> Callable[[], object]:
    """A function that waits until all that is enqueued by now is done."""
    if device.type != "cuda":
        return _nothing
    event = torch.cuda.Event()
    event.record()
    return event.synchronize


def _nothing() -> None:
    pass


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
