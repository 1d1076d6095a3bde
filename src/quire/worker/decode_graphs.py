"""Decode steps as CUDA graphs, one for each bucket of row counts.

Where every row computes one token, the whole step is two replays: the forward (gather, model, head)
and greedy sampling (choose, write to the rows). The host uploads which rows at which positions, and
nothing else. Rows that sample otherwise go from the forward's logits to the sampler as ever.

    rows, positions [2, bucket]  ->  graph: logits [bucket, V]  ->  graph: token_ids [bucket]
                                                                ->  or the sampler
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from quire.step import StepPlan
from quire.worker.batch_builder import BatchBuilder
from quire.worker.model import Model
from quire.worker.rows import Rows
from quire.worker.upload import upload

Replay = Callable[[], None]
Record = Callable[[Replay], Replay]  # what a function does, to be done again


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
    """Records all buckets when it is made, the largest first: the others fit in its memory."""

    def __init__(
        self,
        *,
        model: Model,
        rows: Rows,
        builder: BatchBuilder,
        choose: Callable[[Tensor], Tensor],  # logits [R, V] -> the best token [R] int64
        record: Record,
        progress: Callable[[list[int]], Iterable[int]] = iter,
    ) -> None:
        self._model = model
        self._rows = rows
        self._builder = builder
        self._choose = choose
        max_rows, device = rows.spare_row, rows.token_ids.device
        self._buckets = bucket_sizes(max_rows)
        self._inputs = torch.zeros(2, max_rows, dtype=torch.int64, device=device)
        self._inputs[0] = rows.spare_row
        self._token_ids = torch.zeros(max_rows, dtype=torch.int64, device=device)
        self._logits: dict[int, Tensor] = {}
        self._bucket = max_rows
        self._forwards: dict[int, Replay] = {}
        self._samples: dict[int, Replay] = {}
        for bucket in progress(self._buckets[::-1]):
            self._forwards[bucket] = record(partial(self._run_forward, bucket))
            self._samples[bucket] = record(partial(self._run_sample, bucket))

    def logits(self, plan: StepPlan) -> Tensor | None:
        num_rows = len(plan.rows)
        if not is_plain_decode(plan):
            return None
        self._bucket = self._buckets[int(np.searchsorted(self._buckets, num_rows))]
        inputs = np.zeros((2, self._bucket), dtype=np.int64)
        inputs[0] = self._rows.spare_row
        inputs[0, :num_rows] = plan.rows
        inputs[1, :num_rows] = plan.num_computed
        (uploaded,) = upload([inputs.ravel()], self._inputs.device)
        self._inputs[:, : self._bucket].copy_(uploaded.view(2, -1))
        self._forwards[self._bucket]()
        return self._logits[self._bucket][:num_rows]

    def sample_greedily(self, num_rows: int) -> Tensor:
        self._samples[self._bucket]()
        return self._token_ids[:num_rows]

    def _run_forward(self, bucket: int) -> None:
        rows, positions = self._inputs[:, :bucket]
        hidden = self._model.forward(self._builder.decode_batch(rows, positions))
        self._logits[bucket] = self._model.logits(hidden)

    def _run_sample(self, bucket: int) -> None:
        rows, positions = self._inputs[:, :bucket]
        token_ids = self._choose(self._logits[bucket])
        self._rows.append(rows, positions + 1, token_ids)
        self._token_ids[:bucket].copy_(token_ids)


class GraphRecorder:
    """Captures what a function enqueues as a CUDA graph; all share one pool of memory."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Replay) -> Replay:
        run()  # compiles what is not compiled yet
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            run()
        return graph.replay


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
