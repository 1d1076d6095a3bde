"""The rows' parameters: columns on the host to decide by, a table on the device to compute with.

Tells which kind of sampling given rows need. Computes nothing with logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
import torch
from torch import Tensor

from quire.kernels.reference.sampling_random import wrap_seed
from quire.kernels.reference.sampling_table import (
    NO_LOGPROBS,
    NUM_COLUMNS,
    NUM_PROMPT,
    PROCESSED_LOGPROBS,
    RAW_LOGPROBS,
    TEMPERATURE,
    SamplingTable,
    pack_line,
)
from quire.pinned_memory import upload
from quire.request import RowSampling
from quire.sampling.logits_processor import Selection
from quire.sampling.penalties import NO_PENALTIES, penalties_of
from quire.step import JoinedRow
from quire.structured import FREE

MAX_EARLY_IDS = 16  # tokens of a row that graphs forbid before its ``min_tokens``
MAX_LOGPROBS = 20  # the most likely tokens beside the new one that graphs compute for every row
_NOT_WANTED = -2  # as the number of log-probabilities that a row wants; -1 is all


class SampleKind(Enum):
    """What a graph does for all rows alike, by the table alone; each kind includes those before."""

    GREEDY = auto()
    RANDOM = auto()
    PENALISED = auto()
    LOGPROBS = auto()


# The kinds that allow masks. Masks change the logits themselves, so raw log-probabilities are lost.
MASKABLE = frozenset(SampleKind) - {SampleKind.LOGPROBS}


@dataclass(frozen=True, kw_only=True, slots=True)
class LogprobGroup:
    """Rows that want equally many log-probabilities of the same kind."""

    selection: Selection
    count: int
    is_processed: bool


class RowParameters:
    """The parameters of ``max_rows`` rows, and of one more that has no owner and is greedy."""

    def __init__(self, max_rows: int, device: torch.device) -> None:
        num_rows = max_rows + 1
        self._device = device
        self.table = SamplingTable.of_nobody(num_rows, device)
        self.num_prompt_tokens = np.zeros(num_rows, dtype=np.int64)
        self.is_random = np.zeros(num_rows, dtype=np.bool_)
        self.is_filtered = np.zeros(num_rows, dtype=np.bool_)
        self.early_ids = torch.full(
            (num_rows, MAX_EARLY_IDS), -1, dtype=torch.int32, device=device
        )  # see `kernels.reference.sampling.forbid_early`
        self._has_early = np.zeros(num_rows, dtype=np.bool_)
        self._has_early_on_host = np.zeros(num_rows, dtype=np.bool_)
        self._is_penalised = np.zeros(num_rows, dtype=np.bool_)
        self._num_logprobs = np.full(num_rows, _NOT_WANTED, dtype=np.int64)
        self._is_processed = np.zeros(num_rows, dtype=np.bool_)

    def join(self, joined: Sequence[JoinedRow]) -> None:
        """Set the parameters of new rows, with one upload for all."""
        lines = np.empty((len(joined), 1 + NUM_COLUMNS), dtype=np.int64)
        for line, new in zip(lines, joined, strict=True):
            self._join_on_host(new)
            line[0] = new.row
            _pack(line[1:], new)
        uploaded = upload(lines, self._device)
        self.table.integers.index_copy_(0, uploaded[:, 0], uploaded[:, 1:])
        self._join_early([new for new in joined if _is_short_list(new.early_ids)])

    def _join_early(self, joined: Sequence[JoinedRow]) -> None:
        if not joined:
            return
        lines = np.full((len(joined), MAX_EARLY_IDS), -1, dtype=np.int32)
        for line, new in zip(lines, joined, strict=True):
            line[: len(new.early_ids)] = new.early_ids
        rows = np.array([new.row for new in joined], dtype=np.int64)
        self.early_ids.index_copy_(0, upload(rows, self._device), upload(lines, self._device))

    def _join_on_host(self, joined: JoinedRow) -> None:
        row, sampling = joined.row, joined.sampling
        self.num_prompt_tokens[row] = joined.num_prompt_tokens
        self.is_random[row] = not sampling.is_greedy
        self.is_filtered[row] = sampling.top_k > 0 or sampling.top_p < 1.0 or sampling.min_p > 0.0
        self._is_penalised[row] = penalties_of(sampling) != NO_PENALTIES
        early_ids = joined.early_ids
        self._has_early[row] = bool(early_ids)
        # Only the host finds out that a mask and these together left no token.
        fits_graphs = joined.constraint is FREE and _is_short_list(early_ids)
        self._has_early_on_host[row] = bool(early_ids) and not fits_graphs
        wanted = sampling.num_logprobs
        self._num_logprobs[row] = _NOT_WANTED if wanted is None else wanted
        self._is_processed[row] = sampling.processed_logprobs

    @property
    def num_prompt_tokens_on_device(self) -> Tensor:
        """Number of prompt tokens of every row, [rows] int64."""
        return self.table.integers[:, NUM_PROMPT]

    def divisors(self, rows: Tensor) -> Tensor:
        """What the logits of ``rows`` [N] are divided by, float32 [N, 1]: 1 for greedy rows."""
        temperature = self.table.reals[:, TEMPERATURE].index_select(0, rows).float()
        return torch.where(temperature > 0, temperature, 1.0).unsqueeze(1)

    def kind_of(self, rows_cpu: np.ndarray) -> SampleKind | None:
        """The simplest kind that does all that these rows ask for; None: none does."""
        counts = self._num_logprobs[rows_cpu]
        if (counts > MAX_LOGPROBS).any() or (counts == -1).any():
            return None
        if self._has_early_on_host[rows_cpu].any():
            return None
        has_early = self._has_early[rows_cpu].any()
        if (counts != _NOT_WANTED).any():
            return None if has_early else SampleKind.LOGPROBS
        if self._is_penalised[rows_cpu].any():
            return SampleKind.PENALISED
        is_more = has_early or self.is_random[rows_cpu].any()
        return SampleKind.RANDOM if is_more else SampleKind.GREEDY

    def logprob_groups(self, rows_cpu: np.ndarray) -> tuple[LogprobGroup, ...]:
        counts, processed = self._num_logprobs[rows_cpu], self._is_processed[rows_cpu]
        kinds = dict.fromkeys(zip(counts.tolist(), processed.tolist(), strict=True))
        return tuple(
            LogprobGroup(
                selection=Selection.of(
                    (counts == count) & (processed == is_processed), rows_cpu, self._device
                ),
                count=count,
                is_processed=is_processed,
            )
            for count, is_processed in kinds
            if count != _NOT_WANTED
        )


def _pack(line: np.ndarray, joined: JoinedRow) -> None:
    """Write a row's parameters to its line of the table."""
    sampling = joined.sampling
    pack_line(
        line,
        (sampling.temperature, sampling.top_p, sampling.min_p, *penalties_of(sampling)),
        (
            wrap_seed(sampling.seed),
            sampling.top_k,
            joined.num_prompt_tokens,
            _wanted(sampling),
            sampling.min_tokens if _is_short_list(joined.early_ids) else 0,
        ),
    )


def _is_short_list(early_ids: Sequence[int]) -> bool:
    """Whether a row's line of ``early_ids`` holds all of them, and there are any."""
    return 0 < len(early_ids) <= MAX_EARLY_IDS


def _wanted(sampling: RowSampling) -> int:
    if sampling.num_logprobs is None:
        return NO_LOGPROBS
    return PROCESSED_LOGPROBS if sampling.processed_logprobs else RAW_LOGPROBS
