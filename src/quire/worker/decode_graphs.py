"""Decode steps as CUDA graphs, one for each bucket of row counts.

Where every row computes one token, the whole step is two replays: the forward (gather, model, head)
and greedy sampling (choose, write to the rows). The host uploads which rows at which positions, and
nothing else. Rows that sample otherwise go from the forward's logits to the sampler as ever.

    rows, positions [2, bucket]  ->  graph: logits [bucket, V]  ->  graph: token_ids [bucket]
                                                                ->  or the sampler
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from quire.step import StepPlan
from quire.worker.upload import upload


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeTensors:
    """The places that the graphs read and write, for up to the largest bucket of rows."""

    inputs: Tensor  # [2, largest] int64: rows and positions; padded with a spare row
    token_ids: Tensor  # [largest] int64, sampled greedily


class DecodeSteps(Protocol):
    """Runs the forward of decode steps, or says that it does not."""

    def logits(self, plan: StepPlan) -> Tensor | None:
        """Logits [R, V] in the plan's order; None where the plan is not for this."""
        ...

    def sample_greedily(self, num_rows: int) -> Tensor:
        """The best token [R] int64 of each row of the last ``logits``, written to its row."""
        ...


class NoDecodeGraphs:
    """Every step is computed op by op."""

    def logits(self, plan: StepPlan) -> Tensor | None:
        return None

    def sample_greedily(self, num_rows: int) -> Tensor:
        raise AssertionError("there are no logits to sample from")


class DecodeGraphs:
    """Captures all buckets when it is made, the largest first: the others fit in its memory."""

    def __init__(
        self,
        *,
        forward: Callable[[Tensor, Tensor], Tensor],
        sample: Callable[[Tensor, Tensor, Tensor], Tensor],
        max_rows: int,
        spare_row: int,
        device: torch.device,
        progress: Callable[[list[int]], Iterable[int]],
    ) -> None:
        """``forward(rows, positions) -> logits``; ``sample(logits, rows, lengths) -> tokens``."""
        self._buckets = bucket_sizes(max_rows)
        self._spare_row = spare_row
        self._device = device
        largest = self._buckets[-1]
        self._tensors = DecodeTensors(
            inputs=torch.zeros(2, largest, dtype=torch.int64, device=device),
            token_ids=torch.zeros(largest, dtype=torch.int64, device=device),
        )
        self._tensors.inputs[0] = spare_row
        self._pool = torch.cuda.graph_pool_handle()
        self._logits: dict[int, Tensor] = {}
        self._forwards: dict[int, torch.cuda.CUDAGraph] = {}
        self._samples: dict[int, torch.cuda.CUDAGraph] = {}
        self._bucket = largest
        for bucket in progress(self._buckets[::-1]):
            self._capture(bucket, forward, sample)

    def logits(self, plan: StepPlan) -> Tensor | None:
        num_rows = len(plan.rows)
        if num_rows > self._buckets[-1] or not is_plain_decode(plan):
            return None
        self._bucket = self._buckets[int(np.searchsorted(self._buckets, num_rows))]
        inputs = np.zeros((2, self._bucket), dtype=np.int64)
        inputs[0] = self._spare_row
        inputs[0, :num_rows] = plan.rows
        inputs[1, :num_rows] = plan.num_computed
        (uploaded,) = upload([inputs.ravel()], self._device)
        self._tensors.inputs[:, : self._bucket].copy_(uploaded.view(2, -1))
        self._forwards[self._bucket].replay()
        return self._logits[self._bucket][:num_rows]

    def sample_greedily(self, num_rows: int) -> Tensor:
        self._samples[self._bucket].replay()
        return self._tensors.token_ids[:num_rows]

    def _capture(
        self,
        bucket: int,
        forward: Callable[[Tensor, Tensor], Tensor],
        sample: Callable[[Tensor, Tensor, Tensor], Tensor],
    ) -> None:
        rows, positions = self._tensors.inputs[:, :bucket]
        logits = forward(rows, positions)  # compiles what is not compiled yet
        sample(logits, rows, positions + 1)
        forward_graph, sample_graph = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(forward_graph, pool=self._pool):
            logits = forward(rows, positions)
        with torch.cuda.graph(sample_graph, pool=self._pool):
            self._tensors.token_ids[:bucket].copy_(sample(logits, rows, positions + 1))
        self._logits[bucket] = logits
        self._forwards[bucket] = forward_graph
        self._samples[bucket] = sample_graph


def is_plain_decode(plan: StepPlan) -> bool:
    """Whether every row computes one token and samples the next."""
    return bool(plan.samples.all()) and plan.num_tokens == len(plan.rows)


def bucket_sizes(max_rows: int) -> list[int]:
    """1, 2, 4, ... 32, then in steps of 32 and later of a quarter, up to ``max_rows`` itself."""
    sizes = [1]
    while sizes[-1] < max_rows:
        size = sizes[-1]
        step = size if size < 32 else max(32, (1 << size.bit_length() - 1) // 4)
        sizes.append(min(size + step, max_rows))
    return sizes
