"""What the attention kernels of other packages have in common: the problems none of them takes."""

from __future__ import annotations

import torch

from quire.attention.backend import AttentionProblem

_DTYPES = (torch.bfloat16, torch.float16)


def reasons_of_shape(problem: AttentionProblem) -> list[str]:
    """Why a kernel for half precision on a GPU, without biases, cannot solve ``problem``."""
    reasons = []
    if problem.device != "cuda":
        reasons.append(f"it needs a GPU and the model is on {problem.device}")
    if problem.dtype not in _DTYPES:
        reasons.append(f"it computes in bfloat16 and float16, not in {problem.dtype}")
    if problem.num_heads % problem.num_kv_heads:
        reasons.append(
            f"{problem.num_heads} query heads cannot share {problem.num_kv_heads} KV heads evenly"
        )
    if problem.alibi_slopes is not None:
        reasons.append("it has no ALiBi slopes")
    return reasons
