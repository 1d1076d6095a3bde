"""A step that was enqueued: its result is on the device until somebody asks for it."""

from __future__ import annotations

import numpy as np

from quire.sampling.logprobs import LogprobTensors
from quire.sampling.sampler import SampleOutput
from quire.step import StepResult, TokenLogprobs
from quire.worker.readback import Readback

NO_TOKENS = np.empty(0, dtype=np.int32)


class PendingStep:
    """What a step left on the device, in the plan's order."""

    def __init__(
        self,
        *,
        step_id: int,
        outputs: list[SampleOutput],
        prompt_logprobs: dict[int, list[LogprobTensors]],
    ) -> None:
        self._step_id = step_id
        self._outputs = outputs
        self._token_ids = [Readback(output.token_ids) for output in outputs]
        self._prompt_logprobs = prompt_logprobs

    def result(self) -> StepResult:
        """Wait for the step and read what it produced."""
        token_ids = [tokens.numpy() for tokens in self._token_ids]
        logprobs: dict[int, TokenLogprobs] = {}
        errors: dict[int, str] = {}
        for output in self._outputs:
            logprobs.update(output.logprobs_to_host())
            errors.update(output.errors)
        return StepResult(
            step_id=self._step_id,
            token_ids=np.concatenate([NO_TOKENS, *token_ids], dtype=np.int32),
            logprobs=logprobs,
            prompt_logprobs={
                row: _joined([part.to_host() for part in passes])
                for row, passes in self._prompt_logprobs.items()
            },
            errors=errors,
        )


def _joined(passes: list[TokenLogprobs]) -> TokenLogprobs:
    """The passes of one row's chunk as one record."""
    return TokenLogprobs(
        token_ids=np.concatenate([part.token_ids for part in passes]),
        logprobs=np.concatenate([part.logprobs for part in passes]),
        ranks=np.concatenate([part.ranks for part in passes]),
    )
