"""A step that was enqueued, and whose result is on its way to the host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
from torch import Tensor

from quire.sampling.logprobs import LogprobTensors
from quire.sampling.sampler import RowLogprobs
from quire.step import Int32, StepResult, TokenLogprobs
from quire.worker.device_errors import LostDeviceEndsEngine, Probe
from quire.worker.readback import Readback, Readbacks
from quire.worker.step_timeout import StepLabel, StepTimeout

NO_TOKENS = np.empty(0, dtype=np.int32)


class HostTokens(Protocol):
    """The S new tokens of a step, on their way to the host."""

    @property
    def is_done(self) -> bool:
        """Whether `read` need not wait."""
        ...

    def read(self, timeout: StepTimeout, label: StepLabel) -> Int32:
        """Wait for the tokens and return them; may be called again."""
        ...


class ReadTokens:
    """Tokens read from tensors, in ``parts``, that later steps may overwrite."""

    def __init__(self, readbacks: Readbacks, parts: list[Tensor], label: StepLabel) -> None:
        self._readback = readbacks.start(parts, label)
        self._tokens: Int32 | None = None

    @property
    def is_done(self) -> bool:
        return self._tokens is not None or self._readback.is_done

    def read(self, timeout: StepTimeout, label: StepLabel) -> Int32:
        if self._tokens is None:
            arrays = self._readback.arrays()
            self._tokens = np.concatenate([NO_TOKENS, *arrays], dtype=np.int32)
        return self._tokens


class PendingStep:
    """An enqueued step. Log-probabilities are read back from the start, since the next step may
    overwrite them."""

    def __init__(
        self,
        tokens: HostTokens,
        logprobs: tuple[RowLogprobs, ...],
        prompt_logprobs: Mapping[int, list[LogprobTensors]],
        errors: Mapping[int, str],
        *,
        label: StepLabel,
        readbacks: Readbacks,
        probe: Probe,
    ) -> None:
        self._tokens = tokens
        self._groups = logprobs
        self._prompt_logprobs = prompt_logprobs
        self._errors = errors
        self._label = label
        self._timeout = readbacks.timeout
        self._probe = probe
        self._readback: Readback | None = None
        if logprobs:
            tensors = [
                tensor
                for group in logprobs
                for tensor in (group.tensors.token_ids, group.tensors.logprobs, group.tensors.ranks)
            ]
            self._readback = readbacks.start(tensors, label)

    @property
    def is_done(self) -> bool:
        return self._tokens.is_done

    def result(self) -> StepResult:
        """Wait for the step and read what it produced."""
        with LostDeviceEndsEngine(self._probe, self._label):
            token_ids = self._tokens.read(self._timeout, self._label)
            if self._readback is None and not self._prompt_logprobs and not self._errors:
                return StepResult(token_ids=token_ids)
            arrays = [] if self._readback is None else self._readback.arrays()
            return StepResult(
                token_ids=token_ids,
                logprobs=self._logprobs(iter(arrays)),
                prompt_logprobs={
                    row: TokenLogprobs.join([part.to_host() for part in passes])
                    for row, passes in self._prompt_logprobs.items()
                },
                errors=dict(self._errors),
            )

    def _logprobs(self, arrays: Iterator[np.ndarray]) -> dict[int, TokenLogprobs]:
        """Row -> the log-probabilities of its one new token."""
        found: dict[int, TokenLogprobs] = {}
        for group in self._groups:
            token_ids, logprobs, ranks = next(arrays), next(arrays), next(arrays)
            for index, row in enumerate(group.rows_cpu.tolist()):
                one = slice(index, index + 1)
                found[row] = TokenLogprobs(
                    token_ids=token_ids[one].astype(np.int32),
                    logprobs=logprobs[one],
                    ranks=ranks[one],
                )
        return found
