"""GPU memory: our share, what steps take of it at their peak, and what the KV cache gets.

    share of the GPU = weights                                   measured
                     + largest step by operation                 measured
                     + sampling by operation                     from the shapes of the logits
                     + graphs: activations                       measured with the largest bucket
                     + graphs: logits, nodes                     from shapes and counts
                     + slack                                     kernels loaded later, rounding
                     + KV cache                                  the rest

The allocator keeps memory of graphs and of operations apart, so both count. Graphs captured later
fit in the pool of those captured first, which are the largest.

What is for steps by operation is held from the start, so that no other process takes it, until the
program empties the allocator's cache, as another engine in it does when it starts. Graphs that are
captured later, and the slack, take theirs when they need it.

The share is this process's alone, whatever others hold: two engines with half of a GPU each can
share it. No engine gets more than is free.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from quire.errors import OutOfMemoryError
from quire.sizes import format_bytes
from quire.worker.buckets import GraphSizes
from quire.worker.sample_graphs import NUM_SHAPES_PER_BUCKET

logger = logging.getLogger(__name__)

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
# What CUDA takes for a process and the driver for itself, at most. More than that, before anything
# is loaded, is held by other processes.
CONTEXT_BYTES = 640 << 20
# What code and handles of libraries take, at most. More than that, since before anything was
# loaded, is of other processes that start at the same time.
CODE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """A GPU's memory at one time, in bytes."""

    total: int
    free: int
    reserved: int  # by this process's allocator

    @classmethod
    def now(cls) -> DeviceMemory:
        free, total = torch.cuda.mem_get_info()
        return cls(total, free, torch.cuda.memory_reserved())

    @property
    def outside(self) -> int:
        """What the allocator does not hold: code, CUDA's own, and other processes'."""
        return self.total - self.free - self.reserved

    @property
    def of_others(self) -> int:
        """About what other processes hold."""
        return max(0, self.outside - CONTEXT_BYTES)

    def __str__(self) -> str:
        return (
            f"the GPU's {format_bytes(self.total)}, of which {format_bytes(self.free)} were free "
            f"at the start and other processes held {format_bytes(self.of_others)}"
        )


@dataclass(frozen=True, slots=True)
class Share:
    """What an engine may take of a GPU, as of two times: before it loaded anything, and since."""

    utilization: float
    before: DeviceMemory
    now: DeviceMemory

    @property
    def asked(self) -> int:
        """Bytes for the allocator, as if there were no other processes."""
        own = self.before.outside - self.before.of_others
        loaded = min(max(0, self.now.outside - self.before.outside), CODE_BYTES)
        return max(0, int(self.now.total * self.utilization) - own - loaded)

    @property
    def num_bytes(self) -> int:
        """Bytes for the allocator, no more than there are. What this process held before, as
        another engine in it does, is not this engine's."""
        return min(self.asked, self.now.free + self.now.reserved - self.before.reserved)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """What an engine takes beside the KV cache, in bytes."""

    weights: int
    largest_step: int  # at its peak, with what all steps share
    sampling: int
    graphs: int

    @property
    def num_bytes(self) -> int:
        return self.weights + self.largest_step + self.sampling + self.graphs + SLACK_BYTES

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "largest step": self.largest_step,
            "sampling": self.sampling,
            "graphs": self.graphs,
            "kept free": SLACK_BYTES,
        }
        return ", ".join(f"{name} {format_bytes(size)}" for name, size in parts.items())


def kv_bytes(share: Share, use: Use) -> int:
    """Bytes for the KV cache: what ``use`` leaves of the share.

    Warns if other processes hold a part of it; an `OutOfMemoryError` if there are none left.
    """
    left = share.num_bytes - use.num_bytes
    asked = f"gpu_memory_utilization={share.utilization:g} is {format_bytes(share.asked)}"
    is_cut = share.num_bytes < share.asked
    if is_cut:
        asked += (
            f", of which other processes, which hold {format_bytes(share.now.of_others)}, leave "
            f"{format_bytes(share.num_bytes)}"
        )
    if left > 0:
        if is_cut:
            logger.warning("%s; the KV cache gets %s", asked, format_bytes(left))
        logger.info("GPU memory: %s, KV cache %s", use, format_bytes(left))
        return left
    remedy = (
        "End other processes or choose another GPU"
        if is_cut
        else "Try increasing gpu_memory_utilization when initializing the engine"
    )
    raise OutOfMemoryError(
        f"No available memory for the cache blocks. {remedy}, or choose a smaller model or dtype. "
        f"{asked}; the engine takes {format_bytes(use.num_bytes)}: {use}."
    )


def hold(num_bytes: int) -> None:
    """Have the allocator hold so much memory for steps by operation; graphs have theirs.

    Warns and holds nothing if there is not so much left.
    """
    torch.cuda.empty_cache()
    try:
        torch.empty(num_bytes, dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError:
        logger.warning(
            "of the %s of GPU memory that the largest steps may need, only %s are left; if other "
            "processes hold the rest, such steps will fail",
            format_bytes(num_bytes),
            format_bytes(torch.cuda.mem_get_info()[0]),
        )


def sampling_bytes(num_rows: int, vocab_size: int) -> int:
    """Bytes that sampling takes with ``num_rows`` rows at a time in steps by operation."""
    return num_rows * vocab_size * FLOAT32_BYTES * OPERATION_COPIES + ROOM_BYTES


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
