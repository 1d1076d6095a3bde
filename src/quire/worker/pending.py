"""A step that was enqueued: its result is on the way to the host until somebody asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from quire.sampling.logprobs import LogprobTensors
from quire.sampling.sampler import RowLogprobs, SampleOutput
from quire.step import StepResult, TokenLogprobs
from quire.worker.device_errors import LostDeviceEndsEngine, Probe
from quire.worker.readback import Readbacks
from quire.worker.watch import StepLabel

NO_TOKENS = np.empty(0, dtype=np.int32)


class PendingStep:
    """Starts to read the outputs at once, since the next step's may take their place."""

    def __init__(
        self,
        outputs: list[SampleOutput],
        prompt_logprobs: dict[int, list[LogprobTensors]],
        *,
        label: StepLabel,
        readbacks: Readbacks,
        probe: Probe,
    ) -> None:
        self._outputs = outputs
        self._prompt_logprobs = prompt_logprobs
        self._label = label
        self._probe = probe
        tensors = [output.token_ids for output in outputs]
        for group in self._groups():
            tensors += [group.tensors.token_ids, group.tensors.logprobs, group.tensors.ranks]
        self._readback = readbacks.start(tensors, label)

    def result(self) -> StepResult:
        """Wait for the step and read what it produced."""
        with LostDeviceEndsEngine(self._probe, self._label):
            arrays = iter(self._readback.arrays())
            token_ids = [next(arrays) for _ in self._outputs]
            return StepResult(
                step_id=self._label.plan.step_id,
                token_ids=np.concatenate([NO_TOKENS, *token_ids], dtype=np.int32),
                logprobs=self._logprobs(arrays),
                prompt_logprobs={
                    row: _joined([part.to_host() for part in passes])
                    for row, passes in self._prompt_logprobs.items()
                },
                errors={row: why for output in self._outputs for row, why in output.errors.items()},
            )

    def _groups(self) -> Iterator[RowLogprobs]:
        for output in self._outputs:
            yield from output.logprobs

    def _logprobs(self, arrays: Iterator[np.ndarray]) -> dict[int, TokenLogprobs]:
        """Row -> the log-probabilities of its one new token."""
        found: dict[int, TokenLogprobs] = {}
        for group in self._groups():
            token_ids, logprobs, ranks = next(arrays), next(arrays), next(arrays)
            for index, row in enumerate(group.rows_cpu.tolist()):
                one = slice(index, index + 1)
                found[row] = TokenLogprobs(
                    token_ids=token_ids[one].astype(np.int32),
                    logprobs=logprobs[one],
                    ranks=ranks[one],
                )
        return found


def _joined(passes: list[TokenLogprobs]) -> TokenLogprobs:
    """The passes of one row's chunk as one record."""
    return TokenLogprobs(
        token_ids=np.concatenate([part.token_ids for part in passes]),
        logprobs=np.concatenate([part.logprobs for part in passes]),
        ranks=np.concatenate([part.ranks for part in passes]),
    )
