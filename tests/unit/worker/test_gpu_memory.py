"""What of a GPU's memory is kept free of KV blocks: pure arithmetic, checked with round numbers."""

from __future__ import annotations

from dataclasses import replace

from quire.worker.buckets import GraphSizes, row_buckets
from quire.worker.gpu_memory import (
    GRAPH_COPIES,
    SLACK_BYTES,
    GraphMemory,
    kv_bytes,
)

MB = 10**6
GRAPHS = GraphMemory(
    sizes=GraphSizes(rows=row_buckets(256), tokens=(16, 32, 64, 96, 128, 192, 256, 384, 512)),
    num_layers=28,
    vocab_size=100_000,
    activation_bytes=100 * MB,
)


def test_the_cache_gets_what_is_left() -> None:
    left = kv_bytes(share=10_000 * MB, largest_step=3000 * MB, sampling_bytes=0, graphs=None)
    assert left == 7000 * MB - SLACK_BYTES
    with_graphs = kv_bytes(
        share=10_000 * MB, largest_step=3000 * MB, sampling_bytes=50 * MB, graphs=GRAPHS
    )
    assert with_graphs == left - 50 * MB - GRAPHS.num_bytes


def test_a_share_that_is_too_small_leaves_nothing() -> None:
    assert kv_bytes(share=MB, largest_step=2 * MB, sampling_bytes=0, graphs=None) == 0


def test_graphs_take_their_activations_their_logits_and_their_nodes() -> None:
    logits = 256 * 100_000 * 4 * GRAPH_COPIES
    nodes = GRAPHS.num_bytes - logits - 110 * MB
    assert 50 * MB < nodes < 300 * MB
    assert replace(GRAPHS, num_layers=56).num_bytes > GRAPHS.num_bytes
