"""EngineConfig: every choice of one engine, made once by `resolve`, frozen from then on.

Knows nothing about how a choice is made. Imports no torch: a dtype is its name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

DEFAULT_GPU_MEMORY_UTILIZATION = 0.92
DEFAULT_STEP_TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceDefaults:
    """Defaults for a kind of device, chosen by benchmarks (benchmarks/NOTEBOOK.md)."""

    attention_backend: str  # one, or several in order of preference: "fa3,triton"
    block_size: int  # larger blocks mean fewer look-ups, smaller ones less waste and finer prefixes
    max_num_seqs: int
    max_num_batched_tokens: int
    steps_in_flight: int  # a GPU must not wait for the host
    short_step_tokens: int | None = None  # as in `SchedulerConfig`


DEVICE_DEFAULTS = {
    "cpu": DeviceDefaults(
        attention_backend="cpp,torch",
        block_size=16,
        max_num_seqs=256,
        max_num_batched_tokens=2048,
        steps_in_flight=1,
    ),
    "cuda": DeviceDefaults(
        attention_backend="fa3,cudnn,triton",
        block_size=64,
        max_num_seqs=512,
        max_num_batched_tokens=8192,
        steps_in_flight=2,
        short_step_tokens=1024,
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Which model, from where, and how its numbers are stored while it runs."""

    model: str  # as the user typed it
    path: Path  # the local folder it was resolved to
    tokenizer: Path  # the local folder with the tokenizer's files
    hf_config: dict[str, Any]  # config.json after hf_overrides
    generation_config: dict[str, Any]  # generation_config.json, or empty
    # Limit on a served answer's tokens: max_new_tokens, if the user set it (not the model).
    max_tokens_limit: int | None = None
    architecture: str
    dtype: str  # "float32", "bfloat16" or "float16"
    max_model_len: int
    # Who chose it: only "user" is a promise. "config" and "auto" may be cut to what memory holds.
    max_model_len_source: Literal["user", "config", "auto"] = "user"
    vocab_size: int  # rows of the output head
    revision: str | None = None
    model_impl: Literal["quire", "transformers"] = "quire"  # whose code computes it
    trust_remote_code: bool = False
    tokenizer_mode: str = "auto"
    skip_tokenizer_init: bool = False
    served_model_name: tuple[str, ...] = ()
    max_logprobs: int = 20
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadConfig:
    """How the weights are loaded."""

    load_format: str = "auto"  # auto, safetensors, pt, dummy
    use_tqdm: bool = True


FP8_DTYPES = ("fp8_e4m3", "fp8_e5m2")


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheConfig:
    """The KV cache. Either ``num_blocks`` is given, or it follows from ``memory_bytes``."""

    block_size: int = 16
    num_blocks: int | None = None
    memory_bytes: int | None = None
    gpu_memory_utilization: float = DEFAULT_GPU_MEMORY_UTILIZATION
    enable_prefix_caching: bool = True
    cache_dtype: str = "auto"  # the model's; or one of `FP8_DTYPES`

    def dtype_for(self, model_dtype: str) -> str:
        """That of keys and values."""
        return model_dtype if self.cache_dtype == "auto" else self.cache_dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulerConfig:
    """The limits of one step and of what runs at once."""

    max_num_seqs: int = 256  # completions that run at once: rows
    max_num_batched_tokens: int = 2048  # tokens of one step
    long_prefill_token_threshold: int = 0  # prompt tokens of one request in a step; 0: no limit
    policy: str = "fcfs"  # or "priority"
    enable_chunked_prefill: bool = True
    steps_in_flight: int = 1
    short_step_tokens: int | None = None  # if rows decode and prompts do not fill a step


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceConfig:
    """Where the model runs and with which kernels."""

    device: str = "cpu"  # "cpu" or "cuda"
    attention_backend: str = "torch"
    num_threads: int | None = None
    enforce_eager: bool = False  # no CUDA graphs
    # A step that takes longer is named in the log; after twice as long the engine ends. 0: never.
    step_timeout_s: float = DEFAULT_STEP_TIMEOUT_SECONDS


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """The complete configuration of one engine."""

    model: ModelConfig
    load: LoadConfig = field(default_factory=LoadConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    device: DeviceConfig = field(default_factory=DeviceConfig)

    @property
    def kv_dtype(self) -> str:
        """Of the KV cache: the model's dtype, or one of `FP8_DTYPES`."""
        return self.cache.dtype_for(self.model.dtype)
