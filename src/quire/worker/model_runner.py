"""Executes a step on one rank: apply changes, gather inputs, forward, sample.

Does not wait for the device: what a step needs of the one before is on the device already, so that
steps can be enqueued before the results of earlier ones are read (`PendingStep.result`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from quire.sampling.logprobs import LogprobTensors
from quire.sampling.sampler import RowLogprobs, SampleOutput, Sampler
from quire.step import StepPlan
from quire.worker.batch_builder import BatchBuilder, SampledRows
from quire.worker.device_errors import LostDeviceEndsEngine, Probe
from quire.worker.grammar_rows import GrammarRows
from quire.worker.graphs import Graphs, Sampled, Unsampled
from quire.worker.kv_memory import KVMemory
from quire.worker.model import Model
from quire.worker.pending import HostTokens, PendingStep, ReadTokens
from quire.worker.prompt_logprobs import PromptLogprobs
from quire.worker.readback import Readbacks
from quire.worker.rows import Rows
from quire.worker.step_layout import StepLayout
from quire.worker.step_timeout import StepLabel

NOTHING: Mapping[int, Any] = MappingProxyType({})


class ModelRunner:
    """Runs the steps of one rank; `worker.build` makes its parts."""

    def __init__(
        self,
        *,
        model: Model,
        sampler: Sampler,
        rows: Rows,
        kv: KVMemory,
        builder: BatchBuilder,
        graphs: Graphs,
        prompt_logprobs: PromptLogprobs,
        readbacks: Readbacks,
        probe: Probe,
        rows_per_pass: int,
        grammars: GrammarRows,
    ) -> None:
        self._model = model
        self._sampler = sampler
        self._rows = rows
        self._kv = kv
        self._builder = builder
        self._graphs = graphs
        self._prompt_logprobs = prompt_logprobs
        self._readbacks = readbacks
        self._probe = probe
        self._grammars = grammars
        self._rows_per_pass = rows_per_pass  # the most rows whose logits exist at once

    @torch.inference_mode()
    def execute(self, plan: StepPlan) -> PendingStep:
        """Enqueue the step. Of a plan without rows only the changes are applied."""
        label = StepLabel(plan=plan)
        with LostDeviceEndsEngine(self._probe, label):
            if plan.has_changes:
                self._apply(plan)
            done = self._graphs.run(plan) if len(plan.rows) else None
            if not isinstance(done, Sampled):
                return self._pending_by_operation(plan, done, label)
            label.is_graph = True
            logprobs = self._sampler.logprobs_of(done.sample, done.rows_cpu)
            errors = self._grammars.errors(done.rows_cpu) if done.is_masked else NOTHING
            return self._pending(done.delivered, label, logprobs=logprobs, errors=errors)

    @torch.inference_mode()
    def gives_numbers(self, plan: StepPlan) -> bool:
        """Run the step and tell whether none of its logits is NaN. Waits for the device."""
        self._apply(plan)
        batch, _ = self._builder.build(plan, StepLayout.of(plan))
        return not bool(self._model.logits(self._model.forward(batch)).isnan().any())

    def _pending_by_operation(
        self, plan: StepPlan, done: Unsampled | None, label: StepLabel
    ) -> PendingStep:
        """Do by operation what graphs have not done: sampling, or the whole step."""
        outputs: list[SampleOutput] = []
        prompt_logprobs: dict[int, list[LogprobTensors]] = {}
        if done is not None:
            label.is_graph = True
            outputs = self._sample(done.hidden, done.rows)
        elif len(plan.rows):
            outputs, prompt_logprobs = self._run_by_operation(plan)
        return self._pending(
            ReadTokens(self._readbacks, [output.token_ids for output in outputs], label),
            label,
            logprobs=tuple(group for output in outputs for group in output.logprobs),
            prompt_logprobs=prompt_logprobs,
            errors={row: why for output in outputs for row, why in output.errors.items()},
        )

    def _pending(
        self,
        tokens: HostTokens,
        label: StepLabel,
        *,
        logprobs: tuple[RowLogprobs, ...],
        prompt_logprobs: Mapping[int, list[LogprobTensors]] = NOTHING,
        errors: Mapping[int, str] = NOTHING,
    ) -> PendingStep:
        self._grammars.follow(label.plan.sampled_rows, tokens, label)
        return PendingStep(
            tokens,
            logprobs,
            prompt_logprobs,
            errors,
            label=label,
            readbacks=self._readbacks,
            probe=self._probe,
        )

    def _run_by_operation(
        self, plan: StepPlan
    ) -> tuple[list[SampleOutput], dict[int, list[LogprobTensors]]]:
        layout = StepLayout.of(plan)
        batch, sampled = self._builder.build(plan, layout)
        if not self._prompt_logprobs.are_wanted(plan):
            return self._sample(self._model.forward(batch), sampled), {}
        hidden = self._model.forward(replace(batch, outputs=None))
        outputs = self._sample(batch.lines_of_outputs(hidden), sampled)
        return outputs, self._prompt_logprobs.compute(hidden, plan, layout)

    def _apply(self, plan: StepPlan) -> None:
        """Apply the changes since the step before, in the order that `StepPlan` documents."""
        for row in plan.left:
            self._sampler.leave(row)
            self._grammars.leave(row)
        if plan.copies:
            self._kv.copy_blocks(plan.copies)
        self._rows.apply(plan)
        if plan.joined:
            self._sampler.join(plan.joined)
            self._grammars.join(plan.joined)
        if plan.tokens:
            self._grammars.put(plan.tokens)
        self._graphs.apply(plan)

    def _sample(self, hidden: Tensor, sampled: SampledRows) -> list[SampleOutput]:
        """Sample from ``hidden`` [S, E] and write the tokens to their rows, where the next step
        reads them."""
        outputs = []
        for part, lines in zip(
            sampled.split(self._rows_per_pass), hidden.split(self._rows_per_pass), strict=False
        ):
            output = self._sampler.sample(
                self._model.logits(lines).float(),
                part.rows,
                part.rows_cpu,
                part.lengths,
                part.lengths_cpu,
            )
            self._rows.append(part.rows, part.lengths, output.token_ids)
            outputs.append(output)
        return outputs
