"""Inline executor: one rank, in this process and thread."""

from __future__ import annotations

from quire.config import EngineConfig
from quire.executor.protocol import PendingResult
from quire.kv_layout import KVLayout
from quire.step import StepPlan
from quire.worker.worker import Worker


class InlineExecutor:
    """Calls one worker directly."""

    def __init__(self, config: EngineConfig) -> None:
        self._worker = Worker(config)
        self._facts = self._worker.load_model()

    @property
    def kv_layout(self) -> KVLayout:
        return self._facts.kv_layout

    @property
    def weight_bytes(self) -> int:
        return self._facts.weight_bytes

    @property
    def attention_backend(self) -> str:
        return self._facts.attention_backend

    def available_kv_bytes(self) -> int:
        return self._worker.available_kv_bytes()

    def initialize_kv_cache(self, num_blocks: int) -> int:
        num_bytes = self._worker.initialize_kv_cache(num_blocks)
        self._worker.warm_up()
        return num_bytes

    def submit(self, plan: StepPlan) -> PendingResult:
        return self._worker.execute(plan)

    def close(self) -> None:
        self._worker.close()
