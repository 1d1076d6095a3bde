"""Capturing CUDA graphs. Knows nothing about what is captured."""

from __future__ import annotations

from collections.abc import Callable

import torch

Replay = Callable[[], None]
Record = Callable[[Replay], Replay]  # runs a function and returns what does the same again


class GraphRecorder:
    """Captures what a function enqueues as a CUDA graph; all share one pool of memory.

    The pool grows if a graph needs a larger piece than those before it have left, and never
    shrinks: so the largest graph should be recorded first.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()

    def __call__(self, run: Replay) -> Replay:
        run()  # compiles kernels, and does once what may not be captured
        try:
            return self._capture(run)
        except torch.OutOfMemoryError:  # what the allocator holds for others is not given to graphs
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            return self._capture(run)

    def _capture(self, run: Replay) -> Replay:
        graph = torch.cuda.CUDAGraph()
        # `torch.cuda.graph` would wait for the steps in flight, and return the memory that the
        # allocator holds for others. Other threads of the process may go on using the device.
        with torch.cuda.stream(self._stream):
            graph.capture_begin(self._pool, capture_error_mode="thread_local")
            try:
                run()
            finally:
                graph.capture_end()
        return graph.replay
