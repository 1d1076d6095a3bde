"""The table on the device that tells kernels how each row is sampled, and what its columns mean.

A line of the table is 8-byte numbers: floats in the first columns, integers in the others. A row
without an owner is greedy and asks for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# floats
TEMPERATURE = 0  # 0 is greedy
TOP_P = 1
MIN_P = 2
REPETITION = 3
FREQUENCY = 4
PRESENCE = 5
# integers
SEED = 6
TOP_K = 7  # 0 is off
NUM_PROMPT = 8  # tokens of the prompt
LOGPROBS = 9  # NO_LOGPROBS, RAW_LOGPROBS or PROCESSED_LOGPROBS
MIN_TOKENS = 10  # of the output, before which its early tokens are forbidden
NUM_COLUMNS = 11

NO_LOGPROBS = 0
RAW_LOGPROBS = 1
PROCESSED_LOGPROBS = 2  # of the logits after penalties and temperature


@dataclass(frozen=True, slots=True)
class SamplingTable:
    """The parameters of all rows, [rows, NUM_COLUMNS]; both fields view the same memory."""

    integers: Tensor  # int64
    reals: Tensor  # float64

    @classmethod
    def of_nobody(cls, num_rows: int, device: torch.device) -> SamplingTable:
        reals = torch.zeros(num_rows, NUM_COLUMNS, dtype=torch.float64, device=device)
        reals[:, [TOP_P, REPETITION]] = 1.0
        return cls(integers=reals.view(torch.int64), reals=reals)

    def take(self, rows: Tensor) -> SamplingTable:
        """The lines of ``rows`` [R] int64."""
        integers = self.integers.index_select(0, rows)
        return SamplingTable(integers=integers, reals=integers.view(torch.float64))


def pack_line(line: np.ndarray, reals: tuple[float, ...], integers: tuple[int, ...]) -> None:
    """Write one row's numbers, in the order of the columns, to ``line`` [NUM_COLUMNS] int64."""
    line[: len(reals)].view(np.float64)[:] = reals
    line[len(reals) :] = integers
