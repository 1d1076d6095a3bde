"""Paged attention by FlashAttention 3 for the longest prompts of a step, where it is installed.

Not every build of it reads pages, so a row's blocks are first copied one behind the other. That is
2 % of the time for 8,192 queries that see 16,384 tokens, and more than is gained for many rows of
few tokens (benchmarks/NOTEBOOK.md, "FlashAttention 3"). `why_not` tells which problems it takes;
whether the installed build computes them right, `start_up_check` finds out: builds leave features
out.
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
from quire.attention.half_precision import reasons_of_heads, reasons_of_shape
from quire.attention.long_prompts import LongPromptAttention, spread
from quire.attention.packages import PACKAGES
from quire.batch import Batch
from quire.pinned_memory import upload

# Module -> the namespace of torch.ops in which it registers its operations.
_OPERATIONS = {"flash_attn_interface": "flash_attn_3", "fa3_fwd_interface": "fa3_fwd"}
_GENERATIONS = (8, 9)  # major compute capability: Ampere where a build has it, Hopper
_WHOLE = (-1, -1)  # no window
_LEAST_WORK = 1 << 29  # keys that a row's queries see, times heads: 8,192 tokens with 16 heads
# Keys and values of one call, for each backend built: 131,072 tokens with 8 heads of 128 values.
_GATHERED_BYTES = 512 << 20
_LARGEST_TILE = 256  # keys that a program reads at once, masked ones too


@dataclass(frozen=True, kw_only=True, slots=True)
class GatheredRows:
    """R consecutive rows for one call, and where the keys are that their queries see."""

    tokens: slice
    blocks: Tensor  # [N] int64, the rows' KV blocks, one row behind the other
    unused: Tensor  # [M] int64, places in those blocks that hold no token of a row
    query_start: Tensor  # [R + 1] int32, each row's first query among the rows' tokens
    key_start: Tensor  # [R + 1] int32, each row's first key among the places of those blocks
    num_keys: Tensor  # [R] int32
    max_query_len: int
    max_num_keys: int


class FA3Attention(LongPromptAttention):
    """The backend ``fa3``."""

    def __init__(self, problem: AttentionProblem, rest: AttentionBackend) -> None:
        super().__init__(problem, rest)
        name = next(filter(find_spec, PACKAGES["fa3"]))
        import_module(name)
        # The operation itself: the package's Python functions import a compiler, for seconds.
        self._attend = getattr(torch.ops, _OPERATIONS[name]).fwd
        self._scale = problem.scale
        self._num_heads, self._most_keys = problem.num_heads, problem.window
        # Number of keys before and after its own that a query sees.
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
        return reasons_of_shape(problem) + reasons_of_heads(problem) + reasons

    def are_long(self, query_lens: np.ndarray, seq_lens: np.ndarray) -> np.ndarray:
        keys = np.minimum(seq_lens - query_lens / 2, self._most_keys or np.inf)
        long: np.ndarray = query_lens * keys * self._num_heads >= _LEAST_WORK
        is_too_long = self._blocks_of(query_lens, seq_lens)[1] > self._most_blocks
        long &= ~is_too_long
        # Rows between the first long one and the last go along, so none that is too long may be.
        if long.any():
            long &= np.cumsum(is_too_long) == np.cumsum(is_too_long)[long.argmax()]
        return long

    def plan_prompts(self, batch: Batch, block_table: Tensor, rows: slice) -> list[GatheredRows]:
        query_lens = np.diff(batch.query_start_cpu.numpy())[rows].astype(np.int64)
        seq_lens = batch.seq_lens_cpu.numpy()[rows].astype(np.int64)
        first_block, num_blocks = self._blocks_of(query_lens, seq_lens)
        num_keys = seq_lens - first_block * self._block_size
        calls = (slice(*call) for call in _calls(num_blocks, self._most_blocks))
        return [
            self._gather(
                batch,
                block_table,
                rows.start + call.start,
                first_block[call],
                num_blocks[call],
                num_keys[call],
            )
            for call in calls
        ]

    def attend(self, out: Tensor, q: Tensor, kv_cache: Tensor, part: GatheredRows) -> None:
        shape = (2, len(part.blocks), *self._block_shape)
        gathered = self._gathered[: torch.Size(shape).numel()].view(shape)
        torch.index_select(kv_cache, 1, part.blocks, out=gathered)
        gathered = gathered.flatten(1, 2).index_fill_(1, part.unused, 0)
        before, after = self._window
        self._attend(
            q[part.tokens],
            gathered[0],
            gathered[1],
            out=out[part.tokens],
            cu_seqlens_q=part.query_start,
            cu_seqlens_k=part.key_start,
            seqused_k=part.num_keys,
            max_seqlen_q=part.max_query_len,
            max_seqlen_k=part.max_num_keys,
            softmax_scale=self._scale,
            is_causal=True,
            window_size_left=before,
            window_size_right=after,
            softcap=self._soft_cap,
            num_splits=1,
        )

    def _blocks_of(
        self, query_lens: np.ndarray, seq_lens: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Per row, the first block that its queries see, and how many blocks are gathered.

        They hold a tile more than the row's keys: the kernel multiplies what it reads there by
        zero, so that it must be finite.
        """
        size = self._block_size
        first_key = 0 * seq_lens
        if self._most_keys is not None:
            first_key = np.maximum(seq_lens - query_lens - self._most_keys + 1, 0)
        first_block = first_key // size
        return first_block, -(-(seq_lens + _LARGEST_TILE - 1) // size) - first_block

    def _gather(
        self,
        batch: Batch,
        block_table: Tensor,
        first: int,
        first_block: np.ndarray,
        num_blocks: np.ndarray,
        num_keys: np.ndarray,
    ) -> GatheredRows:
        """The R rows from ``first`` on, with those arrays [R]. All go to the device in one copy."""
        rows = slice(first, first + len(num_blocks))
        query_start = batch.query_start_cpu[first : rows.stop + 1]
        key_start = np.concatenate(([0], np.cumsum(num_blocks))) * self._block_size
        row, place = spread(num_blocks)
        # Beyond a row's last block, that block is gathered again, since some block must be.
        last_block = first_block + (num_keys - 1) // self._block_size
        column = np.minimum(first_block[row] + place, last_block[row])
        behind, place = spread(np.diff(key_start) - num_keys)
        unused = key_start[behind] + num_keys[behind] + place
        parts = (rows.start + row, column, unused, key_start, num_keys)
        numbers = upload(np.concatenate(parts), block_table.device)
        at_row, at_column, at_unused, at_key, counts = numbers.split([len(part) for part in parts])
        return GatheredRows(
            tokens=slice(int(query_start[0]), int(query_start[-1])),
            blocks=block_table[at_row, at_column].long(),
            unused=at_unused,
            query_start=batch.query_start[first : rows.stop + 1] - query_start[0],
            key_start=at_key.int(),
            num_keys=counts.int(),
            max_query_len=int(query_start.diff().max()),
            max_num_keys=int(num_keys.max()),
        )


def _calls(num_blocks: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Cut the rows into runs (first, end) of at most ``most`` blocks in all."""
    first = total = 0
    for row, count in enumerate(num_blocks.tolist()):
        if total + count > most:
            yield first, row
            first, total = row, 0
        total += count
    yield first, len(num_blocks)
