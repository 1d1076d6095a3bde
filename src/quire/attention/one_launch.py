"""A decode step's attention in one launch per layer, norms, positions and the KV write included.

It exists where the GPU has a kernel for it that knows the layer's options. Steps that have other
rows, or rows that share a prefix, are left to the backend.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quire.attention.backend import AttentionPlan, AttentionProblem
from quire.kernels.selection import AttendRows, attend_rows
from quire.kernels.shapes import HeadsShape


class OneLaunch:
    """The launch of one layer."""

    def __init__(self, attend: AttendRows) -> None:
        self._attend = attend
        # of shared memory, which the product before should leave free
        self.block_bytes = attend.block_bytes

    def __call__(
        self,
        qkv: Tensor,
        cos: Tensor,
        sin: Tensor,
        kv_cache: Tensor,
        slots: Tensor,
        plan: AttentionPlan,
    ) -> Tensor | None:
        """qkv [T, (H + 2 K) D] -> attention [T, H, D]; k and v are written to the cache.

        None, and nothing is done, where the plan's step is not of rows with one query alone.
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
        and problem.cache_dtype is None
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
