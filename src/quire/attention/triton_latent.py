"""Paged attention by our own Triton kernel where values are part of the keys: latent attention.

Divides a step into launches as `triton_backend` does; each row reads a shared prefix for itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from quire.attention.backend import AttentionProblem
from quire.attention.launches import Launch, count_processors, plan_launches
from quire.batch import Batch
from quire.kernels.triton.attention import Workspace
from quire.kernels.triton.attention_latent import LatentShape, latent_attention, latent_tile

_LARGEST_VALUE = 512
_LARGEST_TAIL = 128
_PROGRAMS_PER_PROCESSOR = 4  # as many as keys are split for


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentPlan:
    """What the layers of a group share in a step."""

    launches: tuple[Launch, ...]
    decode_rows: ClassVar[None] = None  # there is no such launch for latent attention


class TritonLatentAttention:
    """The backend that ``triton`` builds for a problem with a ``value_dim``."""

    def __init__(self, problem: AttentionProblem) -> None:
        assert problem.value_dim is not None
        self._shape = LatentShape(
            num_heads=problem.num_heads,
            head_dim=problem.head_dim,
            value_dim=problem.value_dim,
            scale=problem.scale,
        )
        device = torch.device(problem.device)
        # Indexed by whether the launch is one of decode rows.
        self._workspaces = tuple(
            Workspace.of(
                _PROGRAMS_PER_PROCESSOR * count_processors(device),
                latent_tile(self._shape, problem.dtype, is_decode=is_decode).block_m,
                self._shape.padded_values,
                device,
            )
            for is_decode in (False, True)
        )

    @staticmethod
    def why_not(problem: AttentionProblem) -> list[str]:
        reasons = []
        value_dim = problem.value_dim or 0
        if value_dim > _LARGEST_VALUE or problem.head_dim - value_dim > _LARGEST_TAIL:
            reasons.append(
                f"keys of {problem.head_dim} values, of which {value_dim} are the value; it takes "
                f"values of up to {_LARGEST_VALUE} and {_LARGEST_TAIL} besides"
            )
        options = (problem.window, problem.soft_cap, problem.alibi_slopes)
        if problem.num_kv_heads != 1 or problem.has_sinks or options != (None, None, None):
            reasons.append("values in keys of several heads, or with a window, cap, slope or sink")
        return reasons

    @classmethod
    def build(cls, problem: AttentionProblem) -> TritonLatentAttention:
        return cls(problem)

    def plan(self, batch: Batch, group: int) -> LatentPlan:
        return LatentPlan(launches=plan_launches(batch, group))

    def forward(
        self, q: Tensor, kv_cache: Tensor, plan: LatentPlan, sinks: Tensor | None = None
    ) -> Tensor:
        assert sinks is None
        out = q.new_empty(*q.shape[:2], self._shape.value_dim)
        for launch in plan.launches:
            latent_attention(
                out[launch.tokens],
                q[launch.tokens],
                kv_cache,
                launch.block_table,
                launch.query_start,
                launch.seq_lens,
                self._shape,
                is_decode=launch.is_decode,
                is_mixed=launch.is_mixed,
                workspace=self._workspaces[launch.is_decode],
            )
        return out
