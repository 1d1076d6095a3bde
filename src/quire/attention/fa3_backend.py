"""Paged attention by FlashAttention 3 for the longest prompts of a step, where it is installed.

Not every build of it reads pages. So the blocks of a row are put one behind the other first: 2 % of
the time for 8,192 queries that see 16,384 tokens, and more than is gained where many rows have few
(benchmarks/RESULTS.md, "FlashAttention 3"). Says what it can be asked; whether the installed build
answers rightly is for `start_up_check` to find out: builds leave features out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from quire import platform
from quire.attention.backend import AttentionBackend, AttentionProblem
from quire.attention.half_precision import reasons_of_shape
from quire.attention.long_prompts import LongPromptAttention
from quire.attention.packages import PACKAGES
from quire.attention.some_rows import for_upload
from quire.batch import Batch

# Module -> where it registers its operations.
_OPERATIONS = {"flash_attn_interface": "flash_attn_3", "fa3_fwd_interface": "fa3_fwd"}
_GENERATIONS = (8, 9)  # major compute capability: Ampere where a build has it, Hopper
_LARGEST_HEAD = 256
_HEAD_MULTIPLE = 8
_WHOLE = (-1, -1)  # no window
_LEAST_WORK = 1 << 29  # keys that a row's queries see, times heads: 8,192 tokens of 16 heads
_GATHERED_BYTES = 512 << 20  # keys and values of one call: 131,072 of 8 heads of 128 values


@dataclass(frozen=True, kw_only=True, slots=True)
class GatheredRows:
    """R rows next to each other, for one call."""

    tokens: slice
    blocks: Tensor  # [N] int64, the rows' KV blocks, one row behind the other
    query_start: Tensor  # [R + 1] int32, among the rows' tokens
    key_start: Tensor  # [R + 1] int32, among the tokens of all those blocks
    seq_lens: Tensor  # [R] int32
    max_query_len: int
    max_seq_len: int


class FA3Attention(LongPromptAttention):
    """The backend ``fa3``."""

    def __init__(self, problem: AttentionProblem, rest: AttentionBackend) -> None:
        super().__init__(problem, rest)
        name = next(filter(find_spec, PACKAGES["fa3"]))
        import_module(name)
        # Its functions in Python are for training: they import a compiler, which takes seconds.
        self._attend = getattr(torch.ops, _OPERATIONS[name]).fwd
        self._scale = problem.scale
        self._num_heads, self._most_keys = problem.num_heads, problem.window
        # Keys before and after a query that it sees besides its own.
        self._window = _WHOLE if problem.window is None else (problem.window - 1, 0)
        self._soft_cap = problem.soft_cap or 0.0
        heads = torch.Size((problem.block_size, problem.num_kv_heads, problem.head_dim))
        self._most_blocks = _GATHERED_BYTES // (2 * heads.numel() * problem.dtype.itemsize)
        self._block_shape = heads
        self._gathered = torch.empty(
            2 * self._most_blocks * heads.numel(), dtype=problem.dtype, device=problem.device
        )

    @staticmethod
    def why_not(problem: AttentionProblem) -> list[str]:
        reasons = []
        if not any(map(find_spec, PACKAGES["fa3"])):
            reasons.append(
                f"neither {' nor '.join(PACKAGES['fa3'])} can be imported (pip install fa3-fwd, or "
                "flash_attn_3 built for this torch and CUDA)"
            )
        if problem.device == "cuda" and platform.compute_capability()[0] not in _GENERATIONS:
            reasons.append("it needs a compute capability of 8 or 9")
        if problem.head_dim > _LARGEST_HEAD or problem.head_dim % _HEAD_MULTIPLE:
            reasons.append(
                f"heads of {problem.head_dim} values; it takes multiples of {_HEAD_MULTIPLE} up to "
                f"{_LARGEST_HEAD}"
            )
        return reasons_of_shape(problem) + reasons

    def are_long(self, query_lens: np.ndarray, seq_lens: np.ndarray) -> np.ndarray:
        num_blocks = -(-seq_lens // self._block_size)
        keys = np.minimum(seq_lens - query_lens / 2, self._most_keys or np.inf)
        long: np.ndarray = query_lens * keys * self._num_heads >= _LEAST_WORK
        return long & bool((num_blocks <= self._most_blocks).all())

    def plan_prompts(self, batch: Batch, block_table: Tensor, rows: slice) -> list[GatheredRows]:
        num_blocks = -(-batch.seq_lens_cpu.numpy()[rows].astype(np.int64) // self._block_size)
        return [
            self._gather(batch, block_table, rows.start + first, num_blocks[first:last])
            for first, last in _calls(num_blocks, self._most_blocks)
        ]

    def attend(self, out: Tensor, q: Tensor, kv_cache: Tensor, part: GatheredRows) -> None:
        shape = (2, len(part.blocks), *self._block_shape)
        gathered = self._gathered[: torch.Size(shape).numel()].view(shape)
        torch.index_select(kv_cache, 1, part.blocks, out=gathered)
        keys, values = gathered.flatten(1, 2)
        before, after = self._window
        self._attend(
            q[part.tokens],
            keys,
            values,
            out=out[part.tokens],
            cu_seqlens_q=part.query_start,
            cu_seqlens_k=part.key_start,
            seqused_k=part.seq_lens,
            max_seqlen_q=part.max_query_len,
            max_seqlen_k=part.max_seq_len,
            softmax_scale=self._scale,
            is_causal=True,
            window_size_left=before,
            window_size_right=after,
            softcap=self._soft_cap,
            num_splits=1,
        )

    def _gather(
        self, batch: Batch, block_table: Tensor, first: int, num_blocks: np.ndarray
    ) -> GatheredRows:
        """The rows from ``first`` on that have so many blocks; what is counted, in one copy."""
        rows = slice(first, first + len(num_blocks))
        query_start = batch.query_start_cpu[first : rows.stop + 1]
        ends = np.cumsum(num_blocks)
        row = np.repeat(np.arange(first, rows.stop), num_blocks)
        column = np.arange(len(row)) - np.repeat(ends - num_blocks, num_blocks)
        key_start = np.concatenate(([0], ends)) * self._block_size
        host = torch.from_numpy(np.concatenate((row, column, key_start)))
        numbers = for_upload(host, block_table.device).to(block_table.device, non_blocking=True)
        at_row, at_column, at_key = numbers.split((len(row), len(row), len(key_start)))
        return GatheredRows(
            tokens=slice(int(query_start[0]), int(query_start[-1])),
            blocks=block_table[at_row, at_column].long(),
            query_start=batch.query_start[first : rows.stop + 1] - query_start[0],
            key_start=at_key.int(),
            seq_lens=batch.seq_lens[rows],
            max_query_len=int(query_start.diff().max()),
            max_seq_len=int(batch.seq_lens_cpu[rows].max()),
        )


def _calls(num_blocks: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """The rows as runs that have at most so many blocks together."""
    first = total = 0
    for row, count in enumerate(num_blocks.tolist()):
        if total + count > most:
            yield first, row
            first, total = row, 0
        total += count
    yield first, len(num_blocks)
