"""The protocol of attention backends, and the problem they are given. Knows no backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from quire.batch import Batch
from quire.kernels.shapes import DecodeRows


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionProblem:
    """Everything about a layer's attention that is known when the model is built."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    dtype: torch.dtype
    device: str  # "cpu" or "cuda"
    cache_dtype: torch.dtype | None = None  # of cached keys and values, if they have another
    window: int | None = None  # tokens visible to a query, itself included
    soft_cap: float | None = None
    alibi_slopes: tuple[float, ...] | None = None
    has_sinks: bool = False  # `forward` gets a score per query head that joins the softmax
    value_dim: int | None = None  # a value is the first so many elements of its key; one cache
    block_size: int = 64  # tokens of a KV block, for kernels that are compiled for one size


def reasons_of_cache(problem: AttentionProblem) -> list[str]:
    """Reasons why kernels for keys of the model's own dtype cannot solve ``problem``."""
    if problem.cache_dtype is None:
        return []
    return ["it reads no cache of 8 bits (leave kv_cache_dtype at 'auto' for it)"]


class AttentionPlan(Protocol):
    """What the layers of a group share in a step; only the backend's ``forward`` knows the rest."""

    @property
    def decode_rows(self) -> DecodeRows | None:
        """The step's rows, if each has one query and one launch of our own kernels can take all."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanOfNext:
    """The plan of a step that a backend leaves to another one, in the end to our own kernels."""

    plan: AttentionPlan

    @property
    def decode_rows(self) -> DecodeRows | None:
        return self.plan.decode_rows


class AttentionBackend(Protocol):
    """Paged causal attention for one problem; equal layers of a group share one."""

    @staticmethod
    def why_not(problem: AttentionProblem) -> list[str]:
        """Reasons why this backend cannot solve ``problem``; an empty list means it can."""
        ...

    @classmethod
    def build(cls, problem: AttentionProblem) -> AttentionBackend: ...

    def plan(self, batch: Batch, group: int) -> AttentionPlan: ...

    def forward(
        self, q: Tensor, kv_cache: Tensor, plan: Any, sinks: Tensor | None = None
    ) -> Tensor:
        """Attend with q [T, H, D] to the cache, which holds the step's own tokens already.

        Returns [T, H, D], or [T, H, value_dim]. ``sinks`` [H] float32: the layer's, if the problem
        has any.
        """
        ...
