"""How tokens are chosen on a GPU: kernels that read the rows' parameters from the device's table.

Steps by operation and captured ones run the same kernels, whose result for a row depends on that
row alone. So its tokens depend neither on how the step is run nor on what runs beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from quire.kernels.triton.argmax import Argmax
from quire.kernels.triton.bitmask import apply_bitmask
from quire.kernels.triton.sampling import Chooser, Sizes
from quire.kernels.triton.sampling_early import forbid_early
from quire.kernels.triton.sampling_history import Counts, History
from quire.kernels.triton.sampling_logprobs import BestLogprobs
from quire.pinned_memory import upload
from quire.sampling.choice import DeviceSample, SampleOnDevice
from quire.sampling.logits_processor import LogitsProcessor, SampleStep, Selection
from quire.sampling.logprobs import LogprobTensors, token_logprobs
from quire.sampling.ops import row_blocks
from quire.sampling.parameters import MAX_LOGPROBS, RowParameters, SampleKind
from quire.sampling.penalties import NO_PENALTIES, penalties_of
from quire.step import JoinedRow


class DeviceChoice:
    """Owns the kernels and their memory, each made when first needed."""

    def __init__(
        self,
        parameters: RowParameters,
        vocab_size: int,
        token_ids: Tensor,
        sizes: Sizes = Sizes(),  # noqa: B008, frozen
    ) -> None:
        self._parameters, self._token_ids = parameters, token_ids
        self._vocab_size, self._sizes = vocab_size, sizes
        self._max_rows = len(parameters.num_prompt_tokens)
        self.on_device: Mapping[SampleKind, SampleOnDevice] = {
            SampleKind.GREEDY: self._sample_greedily,
            SampleKind.RANDOM: self._sample_randomly,
            SampleKind.PENALISED: self._sample_penalised,
            SampleKind.LOGPROBS: self._sample_with_logprobs,
        }

    def penalties(self) -> LogitsProcessor:
        return DevicePenalties(self)

    def forbid(self, logits: Tensor, places_cpu: np.ndarray, masks: np.ndarray) -> None:
        line_of = np.full(len(logits), -1, dtype=np.int32)  # -1: no mask
        line_of[places_cpu] = np.arange(len(masks), dtype=np.int32)
        device = logits.device
        apply_bitmask(logits, upload(line_of, device), upload(masks, device))

    def choose(self, logits: Tensor, rows: Tensor, lengths: Tensor, rows_cpu: np.ndarray) -> Tensor:
        if self._parameters.is_random[rows_cpu].any():
            return self._chooser(logits, rows, lengths)
        return self._argmax(logits)

    def token_logprobs(self, logits: Tensor, targets: Tensor, count: int) -> LogprobTensors:
        if not 0 <= count <= self._best.number:
            return token_logprobs(logits, targets, count)
        return LogprobTensors.of(*self._best(logits, targets)).cut(count)

    @cached_property
    def history(self) -> History:
        return History(self._max_rows, self._vocab_size, self._token_ids, self._parameters.table)

    @cached_property
    def _argmax(self) -> Argmax:
        return Argmax(self._max_rows, self._vocab_size, self._token_ids.device)

    @cached_property
    def _chooser(self) -> Chooser:
        return Chooser(self._max_rows, self._vocab_size, self._parameters.table, self._sizes)

    @cached_property
    def _best(self) -> BestLogprobs:
        return BestLogprobs(self._max_rows, self._vocab_size, self._parameters.table, MAX_LOGPROBS)

    def _sample_greedily(self, logits: Tensor, rows: Tensor, lengths: Tensor) -> DeviceSample:
        return DeviceSample(token_ids=self._argmax(logits))

    def _sample_randomly(self, logits: Tensor, rows: Tensor, lengths: Tensor) -> DeviceSample:
        self._forbid_early(logits, rows, lengths)
        return DeviceSample(token_ids=self._chooser(logits, rows, lengths))

    def _sample_penalised(self, logits: Tensor, rows: Tensor, lengths: Tensor) -> DeviceSample:
        self._forbid_early(logits, rows, lengths)
        tokens = [
            self._chooser(logits[part], rows[part], lengths[part], counts)
            for part, counts in self._counted(rows, lengths)
        ]
        return DeviceSample(token_ids=torch.cat(tokens))

    def _sample_with_logprobs(self, logits: Tensor, rows: Tensor, lengths: Tensor) -> DeviceSample:
        tokens, logprobs = [], []
        for part, counts in self._counted(rows, lengths):
            tokens.append(self._chooser(logits[part], rows[part], lengths[part], counts))
            best = self._best(logits[part], tokens[-1], rows[part], counts)
            logprobs.append(LogprobTensors.of(*best))
        return DeviceSample(token_ids=torch.cat(tokens), logprobs=LogprobTensors.join(logprobs))

    def _forbid_early(self, logits: Tensor, rows: Tensor, lengths: Tensor) -> None:
        parameters = self._parameters
        forbid_early(logits, rows, lengths, parameters.table, parameters.early_ids)

    def _counted(self, rows: Tensor, lengths: Tensor) -> Iterator[tuple[slice, Counts]]:
        """The rows in parts that `History` can take, with the counts of their tokens."""
        for part in row_blocks(len(rows), self.history.rows_at_once):
            with self.history.counts(rows[part], lengths[part]) as counts:
                yield part, counts


class DevicePenalties:
    """The processor of steps by operation; the penalties themselves are in the table."""

    def __init__(self, choice: DeviceChoice) -> None:
        self._choice = choice

    def add_request(self, joined: JoinedRow) -> bool:
        return penalties_of(joined.sampling) != NO_PENALTIES

    def remove_request(self, row: int) -> None:
        pass

    def apply(self, logits: Tensor, selection: Selection, step: SampleStep) -> dict[int, str]:
        self._choice.history.penalise(logits, step.rows, step.lengths)
        return {}
