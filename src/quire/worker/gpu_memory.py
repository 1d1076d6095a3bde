"""GPU memory: what is ours, what a step takes at its peak, what graphs will take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from quire.config import EngineConfig
from quire.worker.decode_graphs import bucket_sizes

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
GRAPH_OVERHEAD_BYTES = 512 << 20  # a graph's own nodes, and cuBLAS workspaces


@dataclass(slots=True)
class Peak:
    num_bytes: int = 0


def share_of_gpu(utilization: float) -> int:
    """Bytes that this process may use: our share of the GPU, less what others hold."""
    free, total = torch.cuda.mem_get_info()
    others = total - free - torch.cuda.memory_reserved()
    return int(total * utilization) - others


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """The most that tensors took while the block ran, those of before included."""
    peak = Peak()
    torch.cuda.reset_peak_memory_stats()
    yield peak
    peak.num_bytes = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()


def graph_bytes(config: EngineConfig) -> int:
    """What the graphs of decode steps keep: the logits of every bucket, and an overhead."""
    if config.device.enforce_eager:
        return 0
    num_rows = sum(bucket_sizes(config.scheduler.max_num_seqs))
    logits = num_rows * config.model.vocab_size * DTYPE_BYTES[config.model.dtype]
    return logits + GRAPH_OVERHEAD_BYTES
