"""Log-probabilities of prompt tokens, for rows that ask for them. Knows nothing about sampling.

The logits of position p give the log-probability of token p + 1, so a chunk that computes
positions [a, b) yields those of tokens a + 1 .. b, as far as these are in the prompt.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from quire.sampling.logprobs import LogprobTensors, token_logprobs
from quire.step import StepPlan
from quire.worker.model import Model
from quire.worker.rows import NO_PROMPT_LOGPROBS, Rows
from quire.worker.step_layout import StepLayout


class PromptLogprobs:
    """Computes them ``positions_per_pass`` at a time, which bounds the memory of the logits."""

    def __init__(self, model: Model, rows: Rows, *, positions_per_pass: int) -> None:
        self._model = model
        self._rows = rows
        self._positions_per_pass = positions_per_pass

    def are_wanted(self, plan: StepPlan) -> bool:
        """Whether a row asked and computes prompt positions in this step."""
        return bool((self._num_targets(plan) > 0).any())

    def compute(
        self, hidden: Tensor, plan: StepPlan, layout: StepLayout
    ) -> dict[int, list[LogprobTensors]]:
        """Row -> the passes over its chunk, for rows that asked and compute prompt positions in
        this step."""
        counts = self._num_targets(plan)
        return {
            int(plan.rows[i]): self._of_row(
                hidden[layout.first_token[i] :][: counts[i]],
                row=int(plan.rows[i]),
                first_target=int(plan.num_computed[i]) + 1,
            )
            for i in np.flatnonzero(counts > 0)
        }

    def _num_targets(self, plan: StepPlan) -> np.ndarray:
        """[R] how many positions of the step are followed by a token whose log-probability is
        wanted."""
        num_left = self._rows.num_prompt_tokens[plan.rows] - 1 - plan.num_computed
        asked = self._rows.num_prompt_logprobs[plan.rows] != NO_PROMPT_LOGPROBS
        return np.where(asked, np.minimum(num_left, plan.num_scheduled), 0)

    def _of_row(self, hidden: Tensor, *, row: int, first_target: int) -> list[LogprobTensors]:
        """The log-probabilities of the row's tokens from ``first_target`` on, by ``hidden`` [N, E]
        of the positions before them."""
        num_logprobs = int(self._rows.num_prompt_logprobs[row])
        targets = self._rows.token_ids[row, first_target : first_target + len(hidden)].long()
        return [
            token_logprobs(self._model.logits(part).float(), part_targets, num_logprobs)
            for part, part_targets in zip(
                hidden.split(self._positions_per_pass),
                targets.split(self._positions_per_pass),
                strict=True,
            )
        ]
