"""A decode step's attention in one launch a layer, together with what stands before it.

Where a GPU has a kernel for it and the layer's options are those it knows. Steps with other rows,
and those that rows share a prefix in, go on to the backend.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quire.attention.backend import AttentionPlan, AttentionProblem
from quire.kernels.selection import AttendRows, HeadsShape, attend_rows


class OneLaunch:
    """Of one layer."""

    def __init__(self, attend: AttendRows) -> None:
        self._attend = attend
        self.block_bytes = attend.block_bytes  # of shared memory, for whoever makes room for it

    def __call__(
        self,
        qkv: Tensor,
        cos: Tensor,
        sin: Tensor,
        kv_cache: Tensor,
        slots: Tensor,
        plan: AttentionPlan,
    ) -> Tensor | None:
        """Of the product's qkv [T, (H + 2 K) D], attention [T, H, D]; k and v go to the cache.

        None, and nothing done, where the step of this plan has more than rows of one query.
        """
        rows = plan.decode_rows
        if rows is None or not self._attend.is_usable():
            return None
        return self._attend(qkv, cos, sin, kv_cache, slots, rows)


def one_launch(
    problem: AttentionProblem,
    shape: HeadsShape,
    norms: tuple[Tensor, ...] | None,
    device: torch.device,
) -> OneLaunch | None:
    """None where there is no such kernel; ``norms``: the RMS weights of q and k, if any."""
    is_plain = (
        problem.window is None
        and problem.soft_cap is None
        and problem.alibi_slopes is None
        and not problem.has_sinks
        and problem.value_dim is None
    )
    if not is_plain:
        return None
    attend = attend_rows(
        shape,
        norms,
        scale=problem.scale,
        block_size=problem.block_size,
        dtype=problem.dtype,
        device=device,
    )
    return None if attend is None else OneLaunch(attend)
