"""The plans of a warm-up: ordinary steps of dummy rows. Knows nothing about the device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from quire.kv_layout import NULL_BLOCK
from quire.request import RowSampling
from quire.step import JoinedRow, StepPlan
from quire.worker.buckets import FOR_ALL_MODELS, MIXED_TOKENS_AT_START

LATER_GRAPHS = [size for size in FOR_ALL_MODELS if size not in MIXED_TOKENS_AT_START]
TRAFFIC_TOKENS = (*LATER_GRAPHS, 3072, 4096, 6144, 8192)
TRAFFIC_PROMPT_LEN = 512


def traffic_sizes(device: str, max_tokens: int) -> list[int]:
    """The numbers of tokens of steps that traffic may bring. On a GPU the first step of a size
    takes up to 0.2 s longer: its graph is captured, or kernels for so many lines are loaded."""
    return [size for size in TRAFFIC_TOKENS if device == "cuda" and size <= max_tokens]


def warm_up_plans(
    *, num_rows: int, prompt_len: int, block_size: int, num_groups: int
) -> Iterator[StepPlan]:
    """The plans in which rows join with a prompt, decode once and leave.

    All their keys and values go to the null block, which no row ever reads unmasked, so that a
    warm-up needs no blocks of the pool.
    """
    block_ids = [NULL_BLOCK] * -(-(prompt_len + 1) // block_size)
    joined = [
        JoinedRow(
            row=row,
            token_ids=np.zeros(prompt_len, dtype=np.int32),
            num_prompt_tokens=prompt_len,
            block_ids=(block_ids,) * num_groups,
            sampling=RowSampling(temperature=0.0),
        )
        for row in range(num_rows)
    ]
    rows = list(range(num_rows))
    yield _plan(rows, num_computed=0, num_scheduled=prompt_len, joined=joined)
    yield _plan(rows, num_computed=prompt_len, num_scheduled=1)
    yield _plan([], num_computed=0, num_scheduled=0, left=rows)


def _plan(
    rows: list[int],
    *,
    num_computed: int,
    num_scheduled: int,
    joined: list[JoinedRow] | None = None,
    left: list[int] | None = None,
) -> StepPlan:
    return StepPlan(
        step_id=-1,  # those of the engine begin at 1
        left=left or [],
        joined=joined or [],
        rows=np.asarray(rows, dtype=np.int32),
        num_computed=np.full(len(rows), num_computed, dtype=np.int32),
        num_scheduled=np.full(len(rows), num_scheduled, dtype=np.int32),
        samples=np.ones(len(rows), dtype=np.bool_),
        epochs=np.zeros(len(rows), dtype=np.int32),
    )
