"""How many tokens a KV cache of some size holds, and what to say when that is too few.

Pure arithmetic over a `KVLayout`; knows nothing about devices or requests. Imports no torch.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from quire.config import EngineConfig
from quire.errors import OutOfMemoryError
from quire.kv_layout import KVLayout
from quire.sizes import format_bytes, unit_hint

logger = logging.getLogger(__name__)

NUM_NULL_BLOCKS = 1  # block 0 is never given to a request
UNLIMITED = 1 << 40  # tokens; longer than any context
ELEMENT_SIZE = {"float32": 4, "bfloat16": 2, "float16": 2, "fp8_e4m3": 1, "fp8_e5m2": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class KVFit:
    """The cost of tokens in one layout, with blocks of one size and steps of one length."""

    layout: KVLayout
    block_size: int
    element_size: int  # bytes of one number
    max_step_tokens: int  # tokens of one step, which a window keeps until its end

    @classmethod
    def of(cls, config: EngineConfig, layout: KVLayout) -> KVFit:
        return cls(
            layout=layout,
            block_size=config.cache.block_size,
            element_size=ELEMENT_SIZE[config.kv_dtype],
            max_step_tokens=config.scheduler.max_num_batched_tokens,
        )

    @property
    def bytes_per_block(self) -> int:
        return self.layout.bytes_per_block(self.block_size, self.element_size)

    def num_blocks_in(self, num_bytes: int) -> int:
        """Blocks that ``num_bytes`` pay for, the null block included."""
        return num_bytes // self.bytes_per_block

    def num_blocks_for(self, num_tokens: int) -> int:
        """Blocks that one request of ``num_tokens`` tokens holds at most at once."""
        return sum(
            self._num_blocks_in_group(group.window, num_tokens) for group in self.layout.groups
        )

    def longest_request(self, num_blocks: int) -> int:
        """The most tokens of one request that fit in ``num_blocks`` blocks; 0 if none do."""
        usable = num_blocks - NUM_NULL_BLOCKS
        shortest, longest = 0, max(usable, 0) * self.block_size
        if self.num_blocks_for(UNLIMITED) <= usable:  # every layer has a window
            return UNLIMITED
        while shortest < longest:
            middle = (shortest + longest + 1) // 2
            if self.num_blocks_for(middle) <= usable:
                shortest = middle
            else:
                longest = middle - 1
        return shortest

    def bytes_for(self, num_tokens: int, num_requests: int = 1) -> int:
        """Bytes of a cache in which so many requests of that length fit at once."""
        blocks = self.num_blocks_for(num_tokens) * num_requests + NUM_NULL_BLOCKS
        return blocks * self.bytes_per_block

    def _num_blocks_in_group(self, window: int | None, num_tokens: int) -> int:
        needed = -(-num_tokens // self.block_size)
        if window is None:
            return needed
        # Before a step, the window; while it runs, its own tokens too; one block for the offset.
        held = -(-(window + self.max_step_tokens) // self.block_size) + 1
        return min(needed, held)


def fit_max_model_len(config: EngineConfig, layout: KVLayout, num_blocks: int) -> EngineConfig:
    """``config`` with max_model_len cut to fit, unless the user set it; then `check_kv_fits`."""
    longest = KVFit.of(config, layout).longest_request(num_blocks)
    wanted, source = config.model.max_model_len, config.model.max_model_len_source
    if source != "user" and 0 < longest < wanted:
        logger.log(
            logging.INFO if source == "auto" else logging.WARNING,
            "max_model_len is %d: the model's %d tokens do not fit in the KV cache; give "
            "max_model_len to choose a length, or a larger %s",
            longest,
            wanted,
            _knob(config),
        )
        config = replace(config, model=replace(config.model, max_model_len=longest))
    check_kv_fits(config, layout, num_blocks)
    return config


def check_kv_fits(config: EngineConfig, layout: KVLayout, num_blocks: int) -> None:
    """An `OutOfMemoryError` with the numbers if one request of full length does not fit."""
    fit = KVFit.of(config, layout)
    longest = fit.longest_request(num_blocks)
    max_model_len = config.model.max_model_len
    if longest >= max_model_len:
        return
    knob = _knob(config)
    available = format_bytes(max(num_blocks, 0) * fit.bytes_per_block)
    needed_blocks = fit.num_blocks_for(max_model_len) + NUM_NULL_BLOCKS
    needed = f"{format_bytes(fit.bytes_for(max_model_len))} ({needed_blocks} blocks)"
    if longest < 1:
        raise OutOfMemoryError(
            "No available memory for the cache blocks. "
            f"Try increasing {knob} when initializing the engine. "
            f"The KV cache got {available}{_said(config)}, one block of {fit.block_size} tokens "
            f"takes {format_bytes(fit.bytes_per_block)}; max_model_len={max_model_len} needs "
            f"{needed}."
        )
    raise OutOfMemoryError(
        f"The model's max seq len ({max_model_len}) is larger than the maximum number of tokens "
        f"that can be stored in KV cache ({longest}). Try increasing {knob} or decreasing "
        "max_model_len when initializing the engine. "
        f"Needed {needed}, available {available} ({num_blocks} blocks); the longest max_model_len "
        f"that fits is {longest}, and max_model_len='auto' chooses it."
    )


def _said(config: EngineConfig) -> str:
    """The size as the user gave it, for a message, with a hint if a unit seems missing."""
    said = config.cache.memory_bytes
    return "" if said is None else f" (kv_cache_memory_bytes={said}{unit_hint(said)})"


def _knob(config: EngineConfig) -> str:
    """The argument that gives the KV cache more memory in this configuration."""
    if config.cache.num_blocks is not None:
        return "num_gpu_blocks_override"
    if config.cache.memory_bytes is not None or config.device.device == "cpu":
        return "kv_cache_memory_bytes"
    return "gpu_memory_utilization"
