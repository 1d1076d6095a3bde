"""Methods that other engines' classes have and ours have not, and what to do instead."""

from __future__ import annotations

# Why not, or what to do instead -> names.
NOT_BUILT = {
    "only text generation is supported yet": (
        *("embed", "encode", "score", "classify", "reward"),
        *("reset_mm_cache", "reset_encoder_cache", "get_supported_tasks"),
    ),
    "use stream, which may be read while other calls run": (
        *("enqueue", "enqueue_chat", "wait_for_completion"),
    ),
    "close this engine and make a new one": (
        *("sleep", "wake_up", "is_sleeping", "release_kv_cache_memory"),
        *("pause_generation", "resume_generation", "is_paused"),
    ),
    "await the requests that run": ("wait_for_requests_to_drain",),
    "no adapters are supported yet": ("add_lora", "remove_lora", "list_loras", "pin_lora"),
    "the model of a running engine cannot be reached": (
        *("collective_rpc", "apply_model", "init_weight_transfer_engine", "start_weight_update"),
        *("update_weights", "finish_weight_update", "update_weight_version", "get_weight_version"),
        "set_weight_version",
    ),
    "use stats": ("get_metrics", "start_profile", "stop_profile"),
    "one process computes": ("get_world_size", "scale_elastic_ep", "handle_fault"),
    "use config": ("get_vllm_config",),
}
_WHY = {name: why for why, names in NOT_BUILT.items() for name in names}


def missing_attribute(owner: object, name: str) -> AttributeError:
    """What to raise where ``owner`` has no such attribute."""
    kind = type(owner).__name__
    if name in _WHY:
        return AttributeError(f"{kind}.{name} is not built yet: {_WHY[name]}")
    return AttributeError(f"{kind!r} object has no attribute {name!r}")
