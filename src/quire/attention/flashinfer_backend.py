"""Paged attention by FlashInfer, where it is installed: its planned prefill for eager prompts.

The prefill is planned on the host, so mixed steps in a graph go to our own kernels. So do decode
rows: on an H200 ours took 53 us for 256 rows of 192 tokens, its XQA 95, and about as long for 64 of
4,096.

Says what it can be asked; whether the answers are right is for `start_up_check` to find out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from quire import platform
from quire.attention.backend import AttentionProblem, PlanOfNext
from quire.attention.half_precision import reasons_of_pages, reasons_of_shape
from quire.attention.some_rows import some_rows
from quire.attention.triton_backend import TritonAttention
from quire.attention.upload import for_upload
from quire.batch import Batch

_OLDEST_GENERATION = 8  # major compute capability
_HEAD_DIMS = (64, 128, 256)

_PREFILL_SCRATCH_BYTES = 128 << 20  # FlashInfer's own advice
_PREFILLS = 2  # one is planned while the other's plan is still on its way to the device


@dataclass(frozen=True, kw_only=True, slots=True)
class FlashInferPlan:
    """What the layers of a group share in a step that has prompts. Decode rows come first."""

    num_decode_rows: int
    decode: Any | None  # our plan of the decode rows, if there are any
    prefill: PlannedPrefill  # of the other rows


class FlashInferAttention:
    """The backend ``flashinfer``."""

    leaves_decode_steps = True

    def __init__(self, problem: AttentionProblem) -> None:
        self._block_size = problem.block_size
        self._ours = TritonAttention.build(problem)
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

    @classmethod
    def build(cls, problem: AttentionProblem) -> FlashInferAttention:
        return cls(problem)

    def plan(self, batch: Batch, group: int) -> FlashInferPlan | PlanOfNext:
        assert batch.kv_caches[0].shape[2] == self._block_size
        first = batch.num_decode_rows
        if batch.is_mixed_graph or first == len(batch.seq_lens):
            return PlanOfNext(plan=self._ours.plan(batch, group))
        prefill = self._prefills.pop(0)
        self._prefills.append(prefill)
        prefill.plan(batch, batch.groups[group].block_table)
        return FlashInferPlan(
            num_decode_rows=first,
            decode=self._ours.plan(some_rows(batch, 0, first)[1], group) if first else None,
            prefill=prefill,
        )

    def forward(
        self,
        q: Tensor,
        kv_cache: Tensor,
        plan: FlashInferPlan | PlanOfNext,
        sinks: Tensor | None = None,
    ) -> Tensor:
        assert sinks is None
        if isinstance(plan, PlanOfNext):
            return self._ours.forward(q, kv_cache, plan.plan)
        out = q.new_empty(q.shape)
        first = plan.num_decode_rows
        if plan.decode is not None:
            out[:first] = self._ours.forward(q[:first], kv_cache, plan.decode)
        plan.prefill.run(out[first:], q[first:].contiguous(), kv_cache)
        return out


class PlannedPrefill:
    """FlashInfer's prefill: planned once a step, run once a layer.

    Its planner writes to a host buffer of its own that is copied to the device behind everything
    enqueued so far, so it must not plan again before that copy is made.
    """

    def __init__(self, problem: AttentionProblem, scratch: Tensor) -> None:
        wrapper = import_module("flashinfer").BatchPrefillWithPagedKVCacheWrapper
        self._wrapper = wrapper(scratch, kv_layout="NHD")
        self._problem = problem
        self._wait_for_copies: Callable[[], object] = _nothing

    def plan(self, batch: Batch, block_table: Tensor) -> None:
        """Rows from ``batch.num_decode_rows`` on."""
        self._wait_for_copies()  # sync: those of the plan before last
        problem, device = self._problem, block_table.device
        first = batch.num_decode_rows
        lengths = batch.seq_lens_cpu[first:]
        num_blocks = (lengths + problem.block_size - 1) // problem.block_size
        block_start = torch.zeros(len(lengths) + 1, dtype=torch.int32)
        torch.cumsum(num_blocks, 0, out=block_start[1:])
        rows = torch.arange(first, first + len(lengths)).repeat_interleave(num_blocks)
        columns = torch.arange(len(rows)) - block_start[:-1].repeat_interleave(num_blocks)
        places = for_upload(torch.stack((rows, columns)), device).to(device, non_blocking=True)
        self._wrapper.plan(
            qo_indptr=for_upload(batch.query_start_cpu[first:] - first, device),
            paged_kv_indptr=for_upload(block_start, device),
            paged_kv_indices=block_table[places[0], places[1]],
            paged_kv_last_page_len=for_upload(
                lengths - (num_blocks - 1) * problem.block_size, device
            ),
            num_qo_heads=problem.num_heads,
            num_kv_heads=problem.num_kv_heads,
            head_dim_qk=problem.head_dim,
            page_size=problem.block_size,
            causal=True,
            sm_scale=problem.scale,
            window_left=-1 if problem.window is None else problem.window - 1,
            q_data_type=problem.dtype,
            kv_data_type=problem.dtype,
            seq_lens=for_upload(lengths, device),
        )
        self._wait_for_copies = _mark(device)

    def run(self, out: Tensor, q: Tensor, kv_cache: Tensor) -> None:
        self._wrapper.run(q, (kv_cache[0], kv_cache[1]), out=out)


def _mark(device: torch.device) -> Callable[[], object]:
    """What waits until all that is enqueued by now is done."""
    if device.type != "cuda":
        return _nothing
    event = torch.cuda.Event()
    event.record()
    return event.synchronize


def _nothing() -> None:
    pass


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
