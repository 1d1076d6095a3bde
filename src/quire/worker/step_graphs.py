"""A step as graphs: the forward, then sampling; which graphs a step takes, and when it takes none.

    decode step    every row computes one token and samples the next    by bucket of rows
    mixed step     anything else of up to some number of tokens         by bucket of tokens
    sampling       after either, by bucket of rows and kind; rows without a kind are sampled by
                   operation from the hidden states that the forward left; graphs of constrained
                   rows wait for their masks, which are filled while the forward runs

Some graphs are captured at the start, the others when a step first needs them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
from torch import Tensor

from quire.sampling.sampler import SampleKind, Sampler
from quire.step import Int32, StepPlan
from quire.worker.batch_builder import SampledRows
from quire.worker.buckets import MOST_FOR_ALL, MOST_KEYS, GraphSizes
from quire.worker.forward_graphs import DecodeShape, ForwardGraphs, MixedShape
from quire.worker.graph_inputs import GraphInputs
from quire.worker.graph_masks import GraphMasks
from quire.worker.graphs import Sampled, Unsampled
from quire.worker.prefix_sharing import SharedRows
from quire.worker.prompt_logprobs import PromptLogprobs
from quire.worker.result_ring import ResultRing
from quire.worker.sample_graphs import SampleGraphs, SampleShape

logger = logging.getLogger(__name__)

ForwardShape: TypeAlias = DecodeShape | MixedShape
Shape: TypeAlias = ForwardShape | SampleShape

NO_PLACES = np.zeros(0, dtype=np.int32)
NO_ROWS = StepPlan(
    step_id=-1,
    rows=NO_PLACES,
    num_computed=NO_PLACES,
    num_scheduled=NO_PLACES,
    samples=np.zeros(0, dtype=np.bool_),
    epochs=NO_PLACES,
)


class Sharing(Protocol):
    """Finds rows that begin with the same KV blocks."""

    def apply(self, plan: StepPlan) -> None:
        """Take note of a plan's changes; called for every plan."""
        ...

    def find(self, rows: Int32) -> SharedRows | None: ...


class NoSharing:
    """For models all of whose layers have a window, so that no block stays shared, or whose
    attention reads row by row anyway."""

    def apply(self, plan: StepPlan) -> None:
        pass

    def find(self, rows: Int32) -> SharedRows | None:
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class _DecodeChoice:
    """What decode steps of ``rows`` replay; valid until a row joins or leaves."""

    rows: Int32  # the same object in all steps of the same rows
    bucket: int
    forward: DecodeShape
    sample: SampleShape | None


NO_CHOICE = _DecodeChoice(rows=NO_PLACES, bucket=0, forward=DecodeShape(0), sample=None)


class StepGraphs:
    """Runs steps by graphs: chooses them, sends their inputs, replays them."""

    def __init__(
        self,
        *,
        sizes: GraphSizes,
        inputs: GraphInputs,
        forwards: ForwardGraphs,
        samples: SampleGraphs,
        results: ResultRing,
        hidden: Tensor,  # [max_rows, E], where forwards leave what is sampled from
        sampler: Sampler,
        sharing: Sharing,
        prompt_logprobs: PromptLogprobs,
        masks: GraphMasks,
    ) -> None:
        self._sizes = sizes
        self._inputs = inputs
        self._forwards = forwards
        self._samples = samples
        self._results = results
        self._hidden = hidden
        self._sampler = sampler
        self._sharing = sharing
        self._prompt_logprobs = prompt_logprobs
        self._masks = masks
        self._last = NO_CHOICE

    def capture_at_start(
        self, progress: Callable[[Sequence[Shape]], Iterable[Shape]] = iter
    ) -> None:
        """Capture the first graphs, the largest one first, so that the others fit in its memory."""
        forwards: list[ForwardShape] = [DecodeShape(size) for size in self._sizes.rows]
        forwards += [MixedShape(size) for size in self._sizes.tokens_at_start]
        forwards.sort(key=lambda shape: -shape.num_tokens)
        samples = [SampleShape(SampleKind.GREEDY, size) for size in self._sizes.rows[::-1]]
        for shape in progress([*forwards, *samples]):
            self._capture(shape)

    def apply(self, plan: StepPlan) -> None:
        self._sharing.apply(plan)
        if plan.joined or plan.left:
            self._last = NO_CHOICE

    def run(self, plan: StepPlan) -> Sampled | Unsampled | None:
        return self._decode(plan) if plan.is_decode else self._mixed(plan)

    def _decode(self, plan: StepPlan) -> Sampled | Unsampled:
        shared = self._sharing.find(plan.rows)
        choice = self._last
        if choice.rows is not plan.rows or choice.forward.is_shared != (shared is not None):
            choice = self._last = self._choose(plan.rows, is_shared=shared is not None)
        self._inputs.send_decode(choice.bucket, plan.rows, plan.num_computed + 1, shared)
        self._forwards.replay(choice.forward)
        return self._sample(plan, choice.bucket, choice.sample)

    def _choose(self, rows: Int32, *, is_shared: bool) -> _DecodeChoice:
        bucket = self._sizes.row_bucket(len(rows))
        forward = DecodeShape(bucket, is_shared=is_shared)
        sample = self._sample_shape(rows, bucket)
        self._make_ready(forward, sample)
        return _DecodeChoice(rows=rows, bucket=bucket, forward=forward, sample=sample)

    def _mixed(self, plan: StepPlan) -> Sampled | Unsampled | None:
        tokens = self._sizes.token_bucket(plan.num_tokens)
        if tokens is None or self._prompt_logprobs.are_wanted(plan):
            return None
        if tokens > MOST_FOR_ALL and plan.mean_keys > MOST_KEYS:
            return None
        forward = MixedShape(tokens)
        rows_cpu = plan.sampled_rows
        bucket = self._sizes.row_bucket(len(rows_cpu))
        sample = self._sample_shape(rows_cpu, bucket)
        self._make_ready(forward, sample)
        self._inputs.send_mixed(tokens, bucket, plan)
        self._forwards.replay(forward)
        return self._sample(plan, bucket, sample)

    def _sample(
        self, plan: StepPlan, bucket: int, shape: SampleShape | None
    ) -> Sampled | Unsampled:
        rows_cpu = plan.sampled_rows
        count = len(rows_cpu)
        if shape is not None:
            if shape.is_masked:
                self._masks.send(rows_cpu)
            sample = self._samples.replay(shape)
            delivered = self._results.take(self._inputs.ring.confirm(), count)
            return Sampled(
                rows_cpu=rows_cpu, sample=sample, delivered=delivered, is_masked=shape.is_masked
            )
        self._inputs.ring.confirm()
        inputs = self._inputs.sampled(bucket)
        rows = SampledRows(
            rows=inputs.rows[:count],
            lengths=inputs.lengths[:count],
            rows_cpu=rows_cpu,
            lengths_cpu=(plan.num_computed + plan.num_scheduled)[plan.samples],
        )
        return Unsampled(hidden=self._hidden[:count], rows=rows)

    def _sample_shape(self, rows_cpu: np.ndarray, bucket: int) -> SampleShape | None:
        kind = self._sampler.graph_kind(rows_cpu) if len(rows_cpu) else None
        if kind is None:
            return None
        return SampleShape(kind, bucket, is_masked=self._masks.are_wanted(rows_cpu))

    def _make_ready(self, forward: ForwardShape, sample: SampleShape | None) -> None:
        """Capture the graphs that are missing, before the step's inputs are sent."""
        if forward not in self._forwards:
            self._capture(forward)
        if sample is not None and sample not in self._samples:
            largest = replace(sample, num_rows=self._sizes.max_rows)
            for shape in (largest, sample):  # in this order, so that the pool grows only once
                if shape not in self._samples:
                    self._capture(shape)

    def _capture(self, shape: Shape) -> None:
        """Capture a graph with inputs of spare rows, since a capture runs once."""
        started = time.perf_counter()
        if isinstance(shape, MixedShape):
            self._inputs.send_mixed(shape.num_tokens, 1, NO_ROWS)
        else:
            none_shared = (NO_PLACES, NO_PLACES)
            self._inputs.send_decode(shape.num_rows, NO_PLACES, NO_PLACES, none_shared)
        if isinstance(shape, SampleShape):
            self._inputs.ring.fetch(self._inputs.decode_bytes(shape.num_rows, is_shared=False))
            self._samples.capture(shape)
        else:
            self._forwards.capture(shape)
            self._inputs.ring.confirm()
        logger.debug("captured %s in %.0f ms", shape, 1e3 * (time.perf_counter() - started))
