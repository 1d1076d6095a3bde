"""Worker: the one object an executor calls on a rank. Knows nothing about scheduling."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch

from quire.config import EngineConfig
from quire.errors import OutOfMemoryError
from quire.kernels.selection import prepare
from quire.models.loading import LoadedModel, build_model
from quire.step import StepPlan
from quire.worker.buckets import MOST_FOR_ALL
from quire.worker.build import (
    build_kv_memory,
    build_runner,
    capture_of,
    captures_graphs,
    graph_sizes,
    rehearse_graphs,
    rows_per_pass,
)
from quire.worker.facts import WorkerFacts
from quire.worker.gpu_memory import (
    DeviceMemory,
    GraphMemory,
    Share,
    Use,
    hold,
    kv_bytes,
    peak_memory,
    sampling_bytes,
)
from quire.worker.kv_memory import KVMemory
from quire.worker.model_runner import ModelRunner
from quire.worker.pending import PendingStep
from quire.worker.warm_up import TRAFFIC_PROMPT_LEN, traffic_sizes, warm_up_plans

logger = logging.getLogger(__name__)

WARM_UP_ROWS = 2
WARM_UP_PROMPT_LEN = 32
# Too long for a graph, in which attention is always our own kernels: so others are warmed up, too.
WARM_UP_LONG_PROMPT_LEN = MOST_FOR_ALL + 1


class Worker:
    """One rank. Methods are called in this order: `load_model`, `compile_kernels`,
    `available_kv_bytes` unless the number of blocks is given, `initialize_kv_cache`, `warm_up`,
    `execute`, `close`."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._loaded: LoadedModel | None = None
        self._kv: KVMemory | None = None
        self._runner: ModelRunner | None = None
        self._sizes_left: list[int] | None = None  # for `warm_up`; None: it was never called
        self._memory_before: DeviceMemory | None = None  # anything is loaded; None: of a CPU
        self._step_bytes = 0  # of GPU memory to hold for steps

    def load_model(self) -> WorkerFacts:
        """Load the weights to the device."""
        if self._config.device.num_threads is not None:
            torch.set_num_threads(self._config.device.num_threads)
        if self._config.device.device == "cuda":
            torch.cuda.empty_cache()
            self._memory_before = DeviceMemory.now()
        prepare(torch.device(self._config.device.device))
        try:
            self._loaded = build_model(self._config)
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(
                f"the weights do not fit in {self._memory_before}; choose a smaller model or "
                "dtype, end other processes, or choose another GPU"
            ) from error
        return WorkerFacts(
            kv_layout=self._loaded.kv_layout,
            weight_bytes=self._loaded.weight_bytes,
            attention_backend=self._loaded.model.attention_backend,
        )

    def compile_kernels(self) -> None:
        """Compile all kernels that graphs need at the same time, rather than one after another."""
        assert self._loaded is not None, "load_model comes first"
        rehearse_graphs(self._config, self._loaded)

    def available_kv_bytes(self) -> int:
        """Bytes that the KV cache may take, now that the weights are loaded."""
        assert self._kv is None, "initialize_kv_cache comes later"
        if self._config.cache.memory_bytes is not None:
            return self._config.cache.memory_bytes
        return self._left_for_kv()

    def initialize_kv_cache(self, num_blocks: int) -> int:
        """Allocate the KV memory and build the runner; returns the bytes of the KV memory."""
        num_bytes = self._build(num_blocks, captures=True)
        if self._step_bytes:
            hold(self._step_bytes)
        return num_bytes

    def warm_up(self) -> bool:
        """Run ordinary steps of dummy rows, so that the first request does not pay for first calls;
        on later calls, each time, a step of another size that traffic may bring.

        Returns whether there are more sizes.
        """
        device, limits = self._config.device.device, self._config.scheduler
        if self._sizes_left is None:
            self._sizes_left = traffic_sizes(device, limits.max_num_batched_tokens)
            num_rows = min(WARM_UP_ROWS, limits.max_num_seqs)
            room = limits.max_num_batched_tokens // num_rows
            self._look_for_numbers()
            self._run_dummies(num_rows, min(WARM_UP_PROMPT_LEN, room))
            if device == "cuda":
                self._run_dummies(1, min(WARM_UP_LONG_PROMPT_LEN, limits.max_num_batched_tokens))
        elif self._sizes_left:
            size = self._sizes_left.pop(0)
            longest = min(TRAFFIC_PROMPT_LEN, self._config.model.max_model_len - 1)
            num_rows = min(-(-size // max(1, longest)), limits.max_num_seqs)
            self._run_dummies(num_rows, size // num_rows)
        assert self._kv is not None, "initialize_kv_cache comes first"
        self._kv.clean_null_block()
        return bool(self._sizes_left)

    def _build(self, num_blocks: int, *, captures: bool) -> int:
        assert self._loaded is not None, "load_model comes first"
        self._kv = build_kv_memory(self._config, self._loaded, num_blocks)
        capture = capture_of(self._config, self._loaded) if captures else None
        self._runner = build_runner(self._config, self._loaded, self._kv, capture)
        return self._kv.num_bytes

    def _left_for_kv(self) -> int:
        """Bytes of our share of the GPU that are left for the KV cache, as measured with steps that
        need no block but the null block."""
        assert self._loaded is not None, "load_model comes first"
        config, limits = self._config, self._config.scheduler
        self._build(num_blocks=1, captures=False)
        with peak_memory() as largest:
            self._run_step_of(limits.max_num_batched_tokens)
        graphs = 0
        if captures_graphs(config, self._loaded):
            sizes = graph_sizes(config, self._loaded)
            with peak_memory() as bucket:
                self._run_step_of(sizes.max_tokens)
            memory = GraphMemory(
                sizes=sizes,
                num_layers=len(self._loaded.kv_layout.layers),
                vocab_size=config.model.vocab_size,
                activation_bytes=bucket.growth,
            )
            graphs = memory.num_bytes
        self._runner = self._kv = None
        torch.cuda.empty_cache()
        assert self._memory_before is not None, "load_model comes first"
        utilization = config.cache.gpu_memory_utilization
        before, now = self._memory_before, DeviceMemory.now()
        use = Use(
            weights=max(0, now.reserved - before.reserved),
            largest_step=largest.num_bytes - now.reserved,
            sampling=sampling_bytes(rows_per_pass(config), config.model.vocab_size),
            graphs=graphs,
        )
        self._step_bytes = largest.growth + use.sampling
        return kv_bytes(Share(utilization, before, now), use)

    def _run_step_of(self, num_tokens: int) -> None:
        """Run a step of so many tokens, with as many rows that sample as a step may have."""
        num_rows = min(num_tokens, self._config.scheduler.max_num_seqs)
        self._run_dummies(num_rows, num_tokens // num_rows)

    def _look_for_numbers(self) -> None:
        """Warn if the model's logits are NaN, of which sampling would make its first token."""
        assert self._runner is not None, "initialize_kv_cache comes first"
        prompt, _, leave = self._dummies(1, 1)
        if not self._runner.gives_numbers(prompt):
            dtype = self._config.model.dtype
            logger.warning(
                "the model's logits are not numbers (NaN): its answers will be nonsense; its "
                "weights are damaged, or too large for dtype=%s%s",
                dtype,
                "; try dtype=bfloat16 or float32" if dtype == "float16" else "",
            )
        self.execute(leave).result()

    def _dummies(self, num_rows: int, prompt_len: int) -> Iterator[StepPlan]:
        assert self._loaded is not None, "load_model comes first"
        return warm_up_plans(
            num_rows=num_rows,
            prompt_len=max(1, min(prompt_len, self._config.model.max_model_len - 1)),
            block_size=self._config.cache.block_size,
            num_groups=len(self._loaded.kv_layout.groups),
        )

    def _run_dummies(self, num_rows: int, prompt_len: int) -> None:
        *steps, leave = self._dummies(num_rows, prompt_len)
        try:
            for plan in steps:
                self.execute(plan).result()
        finally:
            self.execute(leave).result()

    def execute(self, plan: StepPlan) -> PendingStep:
        """Enqueue a step; its result is read from the `PendingStep`."""
        assert self._runner is not None, "initialize_kv_cache comes first"
        return self._runner.execute(plan)

    def close(self) -> None:
        """Free the weights and the KV memory."""
        self._runner = self._kv = None
        self._loaded = None
