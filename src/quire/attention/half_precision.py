"""Problems that the attention kernels of other packages cannot solve, where several share one."""

from __future__ import annotations

import torch

from quire.attention.backend import AttentionProblem, reasons_of_cache

_DTYPES = (torch.bfloat16, torch.float16)
_BLOCK_SIZES = (16, 32, 64, 128)
_LARGEST_HEAD = 256
_HEAD_MULTIPLE = 8


def reasons_of_shape(problem: AttentionProblem) -> list[str]:
    """Reasons why a GPU kernel for half precision and no biases cannot solve ``problem``."""
    reasons = []
    if problem.device != "cuda":
        reasons.append(f"it needs a GPU and the model is on {problem.device}")
    if problem.dtype not in _DTYPES:
        reasons.append(f"it computes in bfloat16 and float16, not in {problem.dtype}")
    reasons += reasons_of_cache(problem)
    if problem.num_heads % problem.num_kv_heads:
        reasons.append(
            f"{problem.num_heads} query heads cannot share {problem.num_kv_heads} KV heads evenly"
        )
    if problem.alibi_slopes is not None:
        reasons.append("it has no ALiBi slopes")
    if problem.has_sinks:
        reasons.append("it is not asked for attention sinks")
    if problem.value_dim is not None:
        reasons.append("it is not asked for values that are part of the keys")
    return reasons


def reasons_of_heads(problem: AttentionProblem) -> list[str]:
    """Reasons why a kernel for nearly any size of heads cannot solve ``problem``."""
    if problem.head_dim <= _LARGEST_HEAD and problem.head_dim % _HEAD_MULTIPLE == 0:
        return []
    return [
        f"heads of {problem.head_dim} values; it takes multiples of {_HEAD_MULTIPLE} up to "
        f"{_LARGEST_HEAD}"
    ]


def reasons_of_pages(problem: AttentionProblem) -> list[str]:
    """Reasons why a kernel for blocks of certain sizes and no soft cap cannot solve ``problem``."""
    reasons = []
    if problem.block_size not in _BLOCK_SIZES:
        sizes = ", ".join(map(str, _BLOCK_SIZES))
        reasons.append(f"block_size={problem.block_size}; it takes {sizes}")
    if problem.soft_cap is not None:
        reasons.append("it is not asked for a soft cap")
    return reasons
