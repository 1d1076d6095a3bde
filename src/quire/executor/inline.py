"""Inline executor: one rank, in this process and thread."""

from __future__ import annotations

from quire.config import EngineConfig
from quire.executor.protocol import PendingResult
from quire.step import StepPlan
from quire.worker.worker import Worker


class InlineExecutor:
    """Calls one worker directly."""

    def __init__(self, config: EngineConfig) -> None:
        self._worker = Worker(config)
        self.facts = self._worker.load_model()

    def compile_kernels(self) -> None:
        self._worker.compile_kernels()

    def available_kv_bytes(self) -> int:
        return self._worker.available_kv_bytes()

    def initialize_kv_cache(self, num_blocks: int) -> int:
        return self._worker.initialize_kv_cache(num_blocks)

    def warm_up(self) -> bool:
        return self._worker.warm_up()

    def submit(self, plan: StepPlan) -> PendingResult:
        return self._worker.execute(plan)

    def close(self) -> None:
        self._worker.close()
