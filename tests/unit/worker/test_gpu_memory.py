"""What of a GPU's memory is kept free of KV blocks: pure arithmetic, checked with round numbers."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from quire.errors import OutOfMemoryError
from quire.worker.buckets import GraphSizes, row_buckets
from quire.worker.gpu_memory import (
    CODE_BYTES,
    CONTEXT_BYTES,
    GRAPH_COPIES,
    SLACK_BYTES,
    DeviceMemory,
    GraphMemory,
    Share,
    Use,
    hold,
    kv_bytes,
)

MB = 10**6
GRAPHS = GraphMemory(
    sizes=GraphSizes(rows=row_buckets(256), tokens=(16, 32, 64, 96, 128, 192, 256, 384, 512)),
    num_layers=28,
    vocab_size=100_000,
    activation_bytes=100 * MB,
)


CONTEXT = 500 * MB
CODE = 100 * MB  # of kernels that were loaded
MODEL = 3000 * MB
USE = Use(weights=MODEL, largest_step=30 * MB, sampling=20 * MB, graphs=70 * MB)


def share_of(utilization: float, *, others: int = 0) -> Share:
    """Of a GPU with 10,000 MB, as an engine finds it, and as it is with its model."""
    before = DeviceMemory(total=10_000 * MB, free=10_000 * MB - CONTEXT - others, reserved=0)
    free = before.free - CODE - MODEL
    return Share(utilization, before, replace(before, free=free, reserved=MODEL))


def test_the_cache_gets_what_is_left(caplog: pytest.LogCaptureFixture) -> None:
    left = 9000 * MB - CONTEXT - CODE - MODEL - 120 * MB - SLACK_BYTES
    assert kv_bytes(share_of(0.9), USE) == left
    assert "other processes" not in caplog.text


def test_two_engines_share_a_gpu() -> None:
    first = 5000 * MB
    alone, beside = (kv_bytes(share_of(0.5, others=others), USE) for others in (0, first))
    assert alone - beside == CONTEXT_BYTES - CONTEXT  # which looks like one of another process


def test_what_another_engine_loads_meanwhile_is_not_this_ones_code() -> None:
    share = share_of(0.5)
    busy = replace(share, now=replace(share.now, free=share.now.free - 4000 * MB))
    assert share.asked - busy.asked == CODE_BYTES - CODE


def test_what_the_process_held_before_is_not_this_engines() -> None:
    share = share_of(0.4)
    held = 3500 * MB
    before, now = (
        replace(one, free=one.free - held, reserved=one.reserved + held)
        for one in (share.before, share.now)
    )
    assert Share(0.4, before, now).num_bytes == share.num_bytes


def test_no_more_than_is_free_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    share = share_of(0.9, others=4000 * MB)
    left = share.now.free + MODEL - USE.num_bytes
    assert 0 < left < kv_bytes(share_of(0.9), USE)
    assert kv_bytes(share, USE) == left
    assert re.search(
        r"=0\.9 is .* GiB, of which other processes, which hold .*, leave", caplog.text
    )


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (share_of(0.3), "Try increasing gpu_memory_utilization when .*=0.3 is 2.24 GiB; the eng"),
        (share_of(0.9, others=6200 * MB), "End other processes or .* which hold .* leave 2.98 GiB"),
    ],
    ids=["small", "others"],
)
def test_a_share_with_no_room_is_refused_with_all_numbers(share: Share, message: str) -> None:
    with pytest.raises(OutOfMemoryError, match=message) as info:
        kv_bytes(share, USE)
    uses = "weights 2.79 GiB, largest step 28.6 MiB, sampling 19.1 MiB, graphs 66.8 MiB, kept free"
    assert str(info.value).startswith("No available memory for the cache blocks. ")
    assert uses in str(info.value)


def test_graphs_take_their_activations_their_logits_and_their_nodes() -> None:
    logits = 256 * 100_000 * 4 * GRAPH_COPIES
    nodes = GRAPHS.num_bytes - logits - 110 * MB
    assert 50 * MB < nodes < 300 * MB
    assert replace(GRAPHS, num_layers=56).num_bytes > GRAPHS.num_bytes


def test_what_steps_need_is_taken_and_left_to_the_allocator(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[object] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("empty cache"))
    monkeypatch.setattr(torch, "empty", lambda size, *, dtype, device: calls.append((size, device)))
    hold(300 * MB)
    assert calls == ["empty cache", (300 * MB, "cuda")]
    assert not caplog.text


def test_a_gpu_without_that_memory_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (200 << 20, 1 << 30))
    monkeypatch.setattr(torch, "empty", refuse)
    hold(300 << 20)
    assert "of the 300 MiB of GPU memory" in caplog.text and "200 MiB are left" in caplog.text
