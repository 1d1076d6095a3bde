"""Paged attention by FlashAttention 3, where one of its packages is installed.

One call for all rows, whatever their number of queries. It reads lengths on the device and takes
its launches from shapes, so graphs can replay it. Says what it can be asked; whether the installed
build answers rightly is for `start_up_check` to find out: builds leave features out.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from torch import Tensor

from quire import platform
from quire.attention.backend import AttentionProblem
from quire.attention.half_precision import reasons_of_shape
from quire.batch import Batch

# The package's own name, and that of the wheel `fa3-fwd`.
_MODULES = ("flash_attn_interface", "fa3_fwd_interface")
_GENERATIONS = (8, 9)  # major compute capability: Ampere where a build has it, Hopper
_LARGEST_HEAD = 256
_HEAD_MULTIPLE = 8
_WHOLE = (-1, -1)  # no window


@dataclass(frozen=True, kw_only=True, slots=True)
class FA3Plan:
    """What the layers of a group share in a step."""

    block_table: Tensor  # [R, B]
    seq_lens: Tensor  # [R]
    query_start: Tensor  # [R + 1]
    max_query_len: int  # or more


class FA3Attention:
    """The backend ``fa3``."""

    leaves_decode_steps = False

    def __init__(self, problem: AttentionProblem) -> None:
        module = import_module(next(filter(find_spec, _MODULES)))
        self._attend = module.flash_attn_with_kvcache
        self._scale = problem.scale
        # Keys before and after a query that it sees besides its own.
        self._window = _WHOLE if problem.window is None else (problem.window - 1, 0)
        self._soft_cap = problem.soft_cap or 0.0

    @staticmethod
    def why_not(problem: AttentionProblem) -> list[str]:
        reasons = []
        if not any(map(find_spec, _MODULES)):
            reasons.append(
                f"neither {' nor '.join(_MODULES)} can be imported (install flash_attn_3, built "
                "for this torch and CUDA)"
            )
        if problem.device == "cuda" and platform.compute_capability()[0] not in _GENERATIONS:
            reasons.append("it needs a compute capability of 8 or 9")
        if problem.head_dim > _LARGEST_HEAD or problem.head_dim % _HEAD_MULTIPLE:
            reasons.append(
                f"heads of {problem.head_dim} values; it takes multiples of {_HEAD_MULTIPLE} up to "
                f"{_LARGEST_HEAD}"
            )
        return reasons_of_shape(problem) + reasons

    @classmethod
    def build(cls, problem: AttentionProblem) -> FA3Attention:
        return cls(problem)

    def plan(self, batch: Batch, group: int) -> FA3Plan:
        return FA3Plan(
            block_table=batch.groups[group].block_table,
            seq_lens=batch.seq_lens,
            query_start=batch.query_start,
            max_query_len=batch.max_query_len,
        )

    def forward(
        self, q: Tensor, kv_cache: Tensor, plan: FA3Plan, sinks: Tensor | None = None
    ) -> Tensor:
        assert sinks is None
        out: Tensor = self._attend(
            q=q,
            k_cache=kv_cache[0],
            v_cache=kv_cache[1],
            cache_seqlens=plan.seq_lens,
            page_table=plan.block_table,
            cu_seqlens_q=plan.query_start,
            max_seqlen_q=plan.max_query_len,
            softmax_scale=self._scale,
            causal=True,
            window_size=self._window,
            softcap=self._soft_cap,
        )
        return out
