"""Sampling without a look at the host on a CPU, where no graph needs it: by the kernels' twins."""

from __future__ import annotations

from torch import Tensor

from quire.kernels.reference import sampling as reference
from quire.sampling import ops
from quire.sampling.choice import DeviceSample
from quire.sampling.host_choice import HostChoice
from quire.sampling.logprobs import token_logprobs
from quire.sampling.parameters import MAX_LOGPROBS, RowParameters, SampleKind


class ReferenceChoice(HostChoice):
    """For tests of graphs that a CPU runs like any function."""

    def __init__(self, parameters: RowParameters, vocab_size: int, token_ids: Tensor) -> None:
        super().__init__(parameters, vocab_size, token_ids)
        self._table, self._token_ids = parameters.table, token_ids
        self._early_ids = parameters.early_ids
        self.on_device = {
            SampleKind.GREEDY: self._sample_greedily,
            SampleKind.RANDOM: self._sample_randomly,
            SampleKind.PENALISED: self._sample_penalised,
            SampleKind.LOGPROBS: self._sample_with_logprobs,
        }

    def _sample_greedily(self, logits: Tensor, rows: Tensor, lengths: Tensor) -> DeviceSample:
        return DeviceSample(token_ids=ops.argmax(logits.float()))

    def _sample_randomly(self, logits: Tensor, rows: Tensor, lengths: Tensor) -> DeviceSample:
        reference.forbid_early(logits, rows, lengths, self._table, self._early_ids)
        return DeviceSample(token_ids=reference.choose(logits, rows, lengths, self._table))

    def _sample_penalised(self, logits: Tensor, rows: Tensor, lengths: Tensor) -> DeviceSample:
        reference.forbid_early(logits, rows, lengths, self._table, self._early_ids)
        penalised = self._penalised(logits, rows, lengths)
        return DeviceSample(token_ids=reference.choose(penalised, rows, lengths, self._table))

    def _sample_with_logprobs(self, logits: Tensor, rows: Tensor, lengths: Tensor) -> DeviceSample:
        penalised = self._penalised(logits, rows, lengths)
        token_ids = reference.choose(penalised, rows, lengths, self._table)
        shown = reference.to_processed(logits, penalised, rows, self._table)
        logprobs = token_logprobs(shown, token_ids, MAX_LOGPROBS)
        return DeviceSample(token_ids=token_ids, logprobs=logprobs)

    def _penalised(self, logits: Tensor, rows: Tensor, lengths: Tensor) -> Tensor:
        return reference.penalise(logits, rows, lengths, self._token_ids, self._table)
