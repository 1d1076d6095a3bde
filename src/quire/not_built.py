"""What vLLM's classes have and Quire's lack, and what to do instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

LORA = "LoRA adapters are not supported yet; merge the adapter into the weights"
PROMPT_ADAPTER = "prompt adapters are not supported; use merged weights"

# Reason or remedy -> method names, for `LLM`, `LLMEngine` and `AsyncLLM` alike: remedies that only
# one of them has are named with its class.
NOT_BUILT = {
    "only text generation is supported yet": (
        *("embed", "encode", "score", "classify", "reward"),
        *("reset_mm_cache", "reset_encoder_cache", "get_supported_tasks"),
    ),
    "use LLM.stream, which may be read while other calls run": (
        *("enqueue", "enqueue_chat", "wait_for_completion"),
    ),
    "an engine neither sleeps nor pauses; it runs until it is closed": (
        *("sleep", "wake_up", "is_sleeping", "release_kv_cache_memory"),
        *("pause_generation", "resume_generation", "is_paused"),
    ),
    "wait for the outputs of the requests that run": ("wait_for_requests_to_drain",),
    LORA: ("add_lora", "remove_lora", "list_loras", "pin_lora"),
    "the model of a running engine cannot be reached": (
        *("collective_rpc", "apply_model", "init_weight_transfer_engine", "start_weight_update"),
        *("update_weights", "finish_weight_update", "update_weight_version", "get_weight_version"),
        *("set_weight_version", "model_executor"),
    ),
    "use get_tokenizer": ("get_tokenizer_group",),
    "use LLM.chat, or apply_chat_template of get_tokenizer()": ("preprocess_chat", "renderer"),
    "the core cannot be reached; use the methods of LLMEngine or AsyncLLM": ("engine_core",),
    "use stats": ("get_metrics",),
    "there is no profiler": ("start_profile", "stop_profile"),
    "one process computes": ("get_world_size", "scale_elastic_ep", "handle_fault"),
    "use LLM.llm_engine.config, LLMEngine.config or AsyncLLM.config": (
        *("get_vllm_config", "get_parallel_config", "get_scheduler_config", "get_decoding_config"),
    ),
    "only `quire serve` limits its queue": ("check_admission",),
    "use from_engine_args": ("from_vllm_config",),
    "use EngineArgs.create_engine_config().model": ("create_model_config",),
}
_WHY = {name: why for why, names in NOT_BUILT.items() for name in names}


class _NotBuilt:
    """Stands for a missing class method, which `__getattr__` does not see."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> NoReturn:
        raise missing(owner, self._name)


class TellsWhatIsNotBuilt:
    """Base class that raises an explaining AttributeError for the methods in `NOT_BUILT`."""

    if not TYPE_CHECKING:  # so that type checkers still report unknown names

        def __getattr__(self, name: str) -> NoReturn:
            raise missing(type(self), name)

        from_vllm_config = _NotBuilt()


def missing(owner: type, name: str) -> AttributeError:
    """The error of a class that has no attribute of this name."""
    kind = owner.__name__
    if name in _WHY:
        return AttributeError(f"{kind}.{name} is not built yet: {_WHY[name]}")
    return AttributeError(f"{kind!r} object has no attribute {name!r}")
