"""What the engine core needs of the ranks that hold the model. Imports no torch."""

from __future__ import annotations

from typing import Protocol

from quire.step import StepPlan, StepResult
from quire.worker.facts import WorkerFacts


class PendingResult(Protocol):
    """A step that was given to the device."""

    @property
    def is_done(self) -> bool:
        """Whether `result` need not wait."""

    def result(self) -> StepResult:
        """Wait for the step; what it raised is raised here."""


class Executor(Protocol):
    """Runs steps in the order in which they are submitted."""

    @property
    def facts(self) -> WorkerFacts: ...

    def compile_kernels(self) -> None:
        """Once the weights are loaded: what would else be compiled when it is first launched."""

    def available_kv_bytes(self) -> int:
        """Memory that the KV cache may take, once the weights are loaded and before it exists."""

    def initialize_kv_cache(self, num_blocks: int) -> int:
        """Allocate the cache, and capture graphs where there are any; the cache's bytes."""

    def warm_up(self) -> bool:
        """Run ordinary steps of dummy rows, once the cache exists and before the first request;
        whether more of them would help."""

    def submit(self, plan: StepPlan) -> PendingResult: ...

    def close(self) -> None: ...
