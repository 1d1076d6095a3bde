"""Executes a step on one rank: changes, gather, forward, sample.

Never waits for the device: what a step needs of the one before is on the device already, so that
steps can be enqueued before the results of earlier ones are read (`PendingStep.result`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from quire.sampling.sampler import SampleOutput, Sampler
from quire.step import StepPlan
from quire.worker.batch_builder import BatchBuilder, SampledRows
from quire.worker.decode_graphs import DecodeSteps
from quire.worker.kv_memory import KVMemory
from quire.worker.model import Model
from quire.worker.pending import PendingStep
from quire.worker.prompt_logprobs import PromptLogprobs
from quire.worker.rows import Rows
from quire.worker.step_layout import StepLayout
from quire.worker.upload import upload


class ModelRunner:
    """The step of one rank; everything it is made of is made by `worker.build`."""

    def __init__(
        self,
        *,
        model: Model,
        sampler: Sampler,
        rows: Rows,
        kv: KVMemory,
        builder: BatchBuilder,
        decode_steps: DecodeSteps,
        prompt_logprobs: PromptLogprobs,
        rows_per_pass: int,
    ) -> None:
        self._model = model
        self._sampler = sampler
        self._rows = rows
        self._kv = kv
        self._builder = builder
        self._decode_steps = decode_steps
        self._prompt_logprobs = prompt_logprobs
        self._rows_per_pass = rows_per_pass  # whose logits [S, V] exist at once

    @torch.inference_mode()
    def execute(self, plan: StepPlan) -> PendingStep:
        """Enqueue the step. A plan without rows only makes its changes."""
        self._apply(plan)
        if not len(plan.rows):
            return PendingStep(step_id=plan.step_id, outputs=[], prompt_logprobs={})
        logits = self._decode_steps.logits(plan)
        if logits is not None:
            output = self._sample_decoded(logits, plan)
            return PendingStep(step_id=plan.step_id, outputs=[output], prompt_logprobs={})
        layout = StepLayout.of(plan)
        batch, sampled = self._builder.build(plan, layout)
        hidden = self._model.forward(batch)
        return PendingStep(
            step_id=plan.step_id,
            outputs=self._sample(hidden, sampled),
            prompt_logprobs=self._prompt_logprobs.compute(hidden, plan, layout),
        )

    def _apply(self, plan: StepPlan) -> None:
        """The changes since the step before, in the order that `StepPlan` promises."""
        for row in plan.left:
            self._sampler.leave(row)
        if plan.copies:
            self._kv.copy_blocks(plan.copies)
        self._rows.apply(plan)
        if plan.joined:
            self._sampler.join(plan.joined)

    def _sample_decoded(self, logits: Tensor, plan: StepPlan) -> SampleOutput:
        """Sample every row of a decode step, in the graph where that is one argmax."""
        if self._sampler.takes_the_best(plan.rows):
            return SampleOutput(token_ids=self._decode_steps.sample_greedily(len(plan.rows)))
        lengths_cpu = plan.num_computed + 1
        rows, lengths = upload([plan.rows, lengths_cpu], logits.device)
        output = self._sampler.sample(logits.float(), rows, plan.rows, lengths, lengths_cpu)
        self._rows.append(rows, lengths, output.token_ids)
        return output

    def _sample(self, hidden: Tensor, sampled: SampledRows) -> list[SampleOutput]:
        """Sample the next tokens and write them to their rows, where the next step reads them."""
        outputs = []
        for part in sampled.split(self._rows_per_pass):
            logits = self._model.logits(hidden.index_select(0, part.hidden_index)).float()
            output = self._sampler.sample(
                logits, part.rows, part.rows_cpu, part.lengths, part.lengths_cpu
            )
            self._rows.append(part.rows, part.lengths, output.token_ids)
            outputs.append(output)
        return outputs
