"""GPU memory: our share, what steps take of it at their peak, and what the KV cache gets.

    share of the GPU = weights and largest step by operation     measured
                     + sampling by operation                     from the shapes of the logits
                     + graphs: activations                       measured with the largest bucket
                     + graphs: logits, nodes                     from shapes and counts
                     + slack                                     kernels loaded later, rounding
                     + KV cache                                  the rest

The allocator keeps memory of graphs and of operations apart, so both count. Graphs captured later
fit in the pool of those captured first, which are the largest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from quire.worker.buckets import GraphSizes
from quire.worker.sample_graphs import NUM_SHAPES_PER_BUCKET

FLOAT32_BYTES = 4
# Tensors as large as float32 logits that exist at once: by operation; and in a graph, where the
# kernels of sampling have memory of their own (ROOM_BYTES).
OPERATION_COPIES = 6
GRAPH_COPIES = 2
ROOM_BYTES = 256 << 20
NODE_BYTES_PER_LAYER = 64 << 10  # of a graph: the driver's description of its launches
NODE_BYTES_OF_SAMPLING = 512 << 10
ROUNDING = 1.1  # what the allocator's rounding adds to activations
SLACK_BYTES = 256 << 20


@dataclass(slots=True)
class Peak:
    num_bytes: int = 0  # that the allocator held, including what it held before
    growth: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphMemory:
    """The memory that graphs will take."""

    sizes: GraphSizes
    num_layers: int
    vocab_size: int
    activation_bytes: int  # of a step of the largest bucket

    @property
    def num_bytes(self) -> int:
        logits = self.sizes.max_rows * self.vocab_size * FLOAT32_BYTES * GRAPH_COPIES
        forwards = 2 * len(self.sizes.rows) + len(self.sizes.tokens)
        nodes = forwards * self.num_layers * NODE_BYTES_PER_LAYER
        samples = NUM_SHAPES_PER_BUCKET * len(self.sizes.rows)
        nodes += samples * NODE_BYTES_OF_SAMPLING
        return int(self.activation_bytes * ROUNDING) + logits + nodes


def kv_bytes(
    *, share: int, largest_step: int, sampling_bytes: int, graphs: GraphMemory | None
) -> int:
    """Bytes that a ``share`` of the GPU, in bytes, leaves for the KV cache."""
    taken = largest_step + sampling_bytes + (graphs.num_bytes if graphs else 0) + SLACK_BYTES
    return max(0, share - taken)


def sampling_bytes(num_rows: int, vocab_size: int) -> int:
    """Bytes that sampling takes with ``num_rows`` rows at a time in steps by operation."""
    return num_rows * vocab_size * FLOAT32_BYTES * OPERATION_COPIES + ROOM_BYTES


def share_of_gpu(utilization: float) -> int:
    """Bytes that this process may use: its share of the GPU, less what other processes hold."""
    free, total = torch.cuda.mem_get_info()
    others = total - free - torch.cuda.memory_reserved()
    return int(total * utilization) - others


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measures the most that the allocator holds within the context."""
    peak = Peak()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    yield peak
    peak.num_bytes = torch.cuda.max_memory_reserved()
    peak.growth = peak.num_bytes - before
    torch.cuda.empty_cache()
