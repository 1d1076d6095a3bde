"""Where the tokens of a plan are in the batch: arithmetic on the host, from the plan's arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quire.step import StepPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class StepLayout:
    """The batch holds rows that compute one token first, otherwise in the plan's order."""

    order: np.ndarray  # [R] int64; the batch's i-th row is the plan's order[i]-th
    query_start: np.ndarray  # [R + 1] int32, in the batch's order
    first_token: np.ndarray  # [R] int64, in the plan's order: index of the row's first token
    last_token: np.ndarray  # [R] int64, in the plan's order: index of its last token
    num_decode_rows: int

    @classmethod
    def of(cls, plan: StepPlan) -> StepLayout:
        is_long = plan.num_scheduled > 1
        order = np.argsort(is_long, kind="stable")
        query_start = np.zeros(len(order) + 1, dtype=np.int32)
        np.cumsum(plan.num_scheduled[order], out=query_start[1:])
        first_token = np.empty(len(order), dtype=np.int64)
        first_token[order] = query_start[:-1]
        return cls(
            order=order,
            query_start=query_start,
            first_token=first_token,
            last_token=first_token + plan.num_scheduled - 1,
            num_decode_rows=len(order) - int(np.count_nonzero(is_long)),
        )
