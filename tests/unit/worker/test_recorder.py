"""Captures, with a stand-in for CUDA that notes what it is asked: the order is what matters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from quire.worker.recorder import GraphRecorder

POOL = (0, 7)


class FakeCUDA:
    """Notes the calls, and refuses memory to the first ``num_refusals`` captures."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, num_refusals: int = 0) -> None:
        self.calls: list[Any] = []
        self.num_refusals = num_refusals
        fakes = {
            "graph_pool_handle": lambda: POOL,
            "Stream": lambda: "side stream",
            "stream": self._stream,
            "CUDAGraph": lambda: FakeGraph(self),
            "synchronize": lambda: self.calls.append("synchronize"),
            "empty_cache": lambda: self.calls.append("empty cache"),
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)

    @contextlib.contextmanager
    def _stream(self, stream: object) -> Iterator[None]:
        self.calls.append(stream)
        yield
        self.calls.append("own stream")

    def run(self) -> None:
        is_captured = self.calls[-1:] == [("begin", POOL, "thread_local")]
        self.calls.append("run")
        if is_captured and self.num_refusals:
            self.num_refusals -= 1
            raise torch.OutOfMemoryError("no memory")


class FakeGraph:
    def __init__(self, cuda: FakeCUDA) -> None:
        self._cuda = cuda

    def capture_begin(self, pool: object, capture_error_mode: str) -> None:
        self._cuda.calls.append(("begin", pool, capture_error_mode))

    def capture_end(self) -> None:
        self._cuda.calls.append("end")

    def replay(self) -> None:
        self._cuda.calls.append("replay")


CAPTURE = ["side stream", ("begin", POOL, "thread_local"), "run", "end"]


def test_what_runs_is_captured_beside_the_steps_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCUDA(monkeypatch)
    replay = GraphRecorder()(cuda.run)
    assert cuda.calls == ["run", *CAPTURE, "own stream"]
    replay()
    assert cuda.calls[-1] == "replay"


def test_a_capture_without_memory_is_tried_again_with_what_the_allocator_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = FakeCUDA(monkeypatch, num_refusals=1)
    GraphRecorder()(cuda.run)
    again = ["synchronize", "empty cache", *CAPTURE, "own stream"]
    assert cuda.calls == ["run", *CAPTURE, *again]


def test_a_second_failure_is_raised_with_the_capture_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCUDA(monkeypatch, num_refusals=2)
    with pytest.raises(torch.OutOfMemoryError):
        GraphRecorder()(cuda.run)
    assert cuda.calls[-1] == "end"
