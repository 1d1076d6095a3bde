"""Logits processors, which change logits before a token is chosen: protocol and arguments.

A processor knows its own rows and nothing of the others. Built-in ones are in files of their own.
Shapes: S rows that sample in the step, N of them concern the processor, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from quire.pinned_memory import upload
from quire.step import JoinedRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The rows of a step that one processor works on; the same object as long as rows stay."""

    positions: Tensor  # [N] int64, indices into the step's S rows
    rows: Tensor  # [N] int64
    positions_cpu: np.ndarray  # [N] int64
    rows_cpu: np.ndarray  # [N] int64
    is_whole: bool  # all S rows, in order

    @classmethod
    def of(cls, mask: np.ndarray, rows_cpu: np.ndarray, device: torch.device) -> Selection:
        """The rows where ``mask`` [S] holds."""
        positions = np.flatnonzero(mask)
        rows = rows_cpu[positions].astype(np.int64)
        return cls(
            positions=upload(positions, device),
            rows=upload(rows, device),
            positions_cpu=positions,
            rows_cpu=rows,
            is_whole=bool(mask.all()),
        )

    def __len__(self) -> int:
        return len(self.rows_cpu)

    def take(self, values: Tensor) -> Tensor:
        """[S, ...] -> [N, ...]; not a copy when all rows are selected."""
        return values if self.is_whole else values.index_select(0, self.positions)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleStep:
    """What is known of the S rows when their next token is sampled."""

    rows: Tensor  # [S] int64
    lengths: Tensor  # [S] int64, tokens known, prompt and output
    lengths_cpu: np.ndarray  # [S]
    token_ids: Tensor  # [max_rows, max_len] int32, by row; read only
    num_prompt_tokens: Tensor  # [max_rows] int64, by row
    num_prompt_tokens_cpu: np.ndarray  # [max_rows] int64, by row


class LogitsProcessor(Protocol):
    """Changes the logits of the rows that asked for it."""

    def add_request(self, joined: JoinedRow) -> bool:
        """Note a row that joins; returns whether this processor has anything to do for it."""

    def remove_request(self, row: int) -> None:
        """Forget a row for which `add_request` returned True."""

    def apply(self, logits: Tensor, selection: Selection, step: SampleStep) -> dict[int, str]:
        """Change ``logits`` [S, V] in place at the selected rows; return row -> why it failed."""
