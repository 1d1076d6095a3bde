"""Attention by its definition, as a backend, and a problem for kernels in half precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quire.attention.backend import AttentionProblem
from quire.batch import Batch
from quire.kernels.reference.attention import paged_attention


def half_problem(**options: Any) -> AttentionProblem:
    """A small problem that kernels for half precision take, on the CPU unless told otherwise."""
    defaults: dict[str, Any] = {
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 64,
        "scale": 0.15,
        "dtype": torch.float16,
        "device": "cpu",
        "block_size": 16,
    }
    return AttentionProblem(**{**defaults, **options})


class Definition:
    """A backend that is right and slow."""

    def __init__(self, problem: AttentionProblem) -> None:
        self.problem = problem

    @staticmethod
    def why_not(problem: AttentionProblem) -> list[str]:
        return []

    @classmethod
    def build(cls, problem: AttentionProblem) -> Definition:
        return cls(problem)

    def plan(self, batch: Batch, group: int) -> Any:
        return batch, batch.groups[group].block_table

    def forward(self, q: Tensor, kv_cache: Tensor, plan: Any) -> Tensor:
        batch, table = plan
        return paged_attention(
            q,
            kv_cache,
            table,
            batch.query_start,
            batch.seq_lens,
            scale=self.problem.scale,
            window=self.problem.window,
            soft_cap=self.problem.soft_cap,
        )
