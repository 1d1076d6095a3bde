"""Paged attention by cuDNN for the long prompts of a step, where it is installed.

A prompt is cut into pieces of as many queries as a graph of cuDNN is made for. Each is a row of its
own, which sees the keys up to its end; so a few graphs serve every step. `why_not` tells which
problems it takes; whether its results are right, `start_up_check` finds out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from quire import platform
from quire.attention.backend import AttentionBackend, AttentionProblem
from quire.attention.cudnn_graphs import PagedSdpa, RaggedRows
from quire.attention.half_precision import reasons_of_heads, reasons_of_pages, reasons_of_shape
from quire.attention.long_prompts import LongPromptAttention, spread
from quire.batch import Batch
from quire.pinned_memory import upload

_OLDEST_GENERATION = 9  # major compute capability; on older GPUs our own kernels are faster
_OLDEST_LIBRARY = 91002  # 9.10.2: pages with ragged queries since 9.7, known wrong in 9.10.0 and .1

_TILE = 128  # queries of one program; a shorter prompt leaves part of it unused
# With fewer programs processors idle, since cuDNN does not split keys as our own kernel does.
_LEAST_PROGRAMS = 128
_MOST_TILES_NEEDED = 16  # however few heads there are; the start-up check has steps of more
_PIECE = 1024  # the most queries of a piece
_PIECES = (2, 8, 32)  # rows of a graph; spare rows only cost programs that end at once
_TABLE_TOKENS = 1 << 17  # of a graph's block table; beyond it, the next power of two
_ALIGNMENT = 4  # numbers: arrays that begin at a multiple of it are aligned to 16 bytes


class CudnnAttention(LongPromptAttention):
    """The backend ``cudnn``."""

    masked_tile = 128  # as measured with cuDNN 9.19

    def __init__(self, problem: AttentionProblem, rest: AttentionBackend) -> None:
        super().__init__(problem, rest)
        self._least_tiles = min(_MOST_TILES_NEEDED, -(-_LEAST_PROGRAMS // problem.num_heads))
        self._sdpa = PagedSdpa(problem, row_counts=_PIECES)

    @staticmethod
    def why_not(problem: AttentionProblem) -> list[str]:
        reasons = []
        if find_spec("cudnn") is None:
            reasons.append("cudnn cannot be imported (pip install nvidia-cudnn-frontend)")
        if problem.device == "cuda":
            if platform.compute_capability()[0] < _OLDEST_GENERATION:
                reasons.append(f"it needs a compute capability of {_OLDEST_GENERATION} or more")
            version = torch.backends.cudnn.version() or 0
            if version < _OLDEST_LIBRARY:
                reasons.append(f"torch brings cuDNN {version}; it needs {_OLDEST_LIBRARY} or later")
        of_problem = reasons_of_shape(problem) + reasons_of_pages(problem)
        return of_problem + reasons_of_heads(problem) + reasons

    def are_long(self, query_lens: np.ndarray, seq_lens: np.ndarray) -> np.ndarray:
        long: np.ndarray = query_lens >= _TILE
        num_tiles = (-(-query_lens[long] // _TILE)).sum()
        return long & (num_tiles >= self._least_tiles)

    def plan_prompts(self, batch: Batch, block_table: Tensor, rows: slice) -> list[RaggedRows]:
        return list(_upload(_cut(batch, rows.start, rows.stop), block_table, self._block_size))

    def attend(self, out: Tensor, q: Tensor, kv_cache: Tensor, part: RaggedRows) -> None:
        self._sdpa.run(out, q, kv_cache, part)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pieces:
    """Pieces of prompts, at most ``_PIECE`` queries of one row each; int64 arrays."""

    first_token: np.ndarray
    num_queries: np.ndarray
    seq_len: np.ndarray  # number of keys that the last query sees
    row: np.ndarray

    def numbers(self, pieces: slice, num_pieces: int) -> np.ndarray:
        """The fields of ``pieces``, [4, more than num_pieces]; spare pieces have no queries."""
        width = -(-(num_pieces + 1) // _ALIGNMENT) * _ALIGNMENT
        numbers = np.zeros((4, width), dtype=np.int64)
        fields = (self.first_token, self.num_queries, self.seq_len, self.row)
        count = len(self.row[pieces])
        for line, field in zip(numbers, fields, strict=True):
            line[:count] = field[pieces]
        numbers[0, count:] = numbers[0, count - 1] + numbers[1, count - 1]
        return numbers


def _cut(batch: Batch, first: int, last: int) -> _Pieces:
    """The pieces of rows ``first`` to ``last``."""
    start = batch.query_start_cpu.numpy().astype(np.int64)
    rows = np.arange(first, last)
    counts = -(-(start[rows + 1] - start[rows]) // _PIECE)
    which, place = spread(counts)
    row = rows[which]
    first_token = start[row] + place * _PIECE
    end = np.minimum(first_token + _PIECE, start[row + 1])
    return _Pieces(
        first_token=first_token,
        num_queries=end - first_token,
        seq_len=batch.seq_lens_cpu.numpy()[row] - (start[row + 1] - end),
        row=row,
    )


def _upload(pieces: _Pieces, table: Tensor, block_size: int) -> Iterator[RaggedRows]:
    """The pieces on the device, copied at once, in parts that the largest graph can take."""
    total, most = len(pieces.row), _PIECES[-1]
    sizes, arrays = [], []
    for first in range(0, total, most):
        size = next(size for size in _PIECES if size >= min(most, total - first))
        sizes.append(size)
        arrays.append(pieces.numbers(slice(first, first + size), size))
    numbers = upload(np.concatenate(arrays, axis=1), table.device)
    lengths = numbers[1:3].to(torch.int32)
    width = max(_TABLE_TOKENS // block_size, 1 << (table.shape[1] - 1).bit_length())
    tables = F.pad(table.index_select(0, numbers[3]), (0, width - table.shape[1]))
    first = 0
    for size, array in zip(sizes, arrays, strict=True):
        rows = slice(first, first + size)
        yield RaggedRows(
            start=numbers[0, first : first + size + 1],
            query_lens=lengths[0, rows],
            seq_lens=lengths[1, rows],
            block_table=tables[rows],
            max_query_len=_PIECE,
        )
        first += array.shape[1]
