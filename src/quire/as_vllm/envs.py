"""The values of ``vllm.envs.VLLM_...``: variables that Quire reads too, and variables that have no
effect here, with the value that the environment gives them.
"""

from __future__ import annotations

from typing import Any

from quire import env
from quire.near_names import did_you_mean


def _is_on(text: str) -> bool:
    return text.lower() in ("1", "true")


# Name in `env.WITHOUT_EFFECT` -> its parser, and its value where it is not set.
_WITHOUT_EFFECT: dict[str, tuple[Any, Any]] = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": (_is_on, False),
    "VLLM_BATCH_INVARIANT": (_is_on, False),
    "VLLM_CACHE_ROOT": (str, ""),
    "VLLM_DO_NOT_TRACK": (_is_on, True),
    "VLLM_ENGINE_READY_TIMEOUT_S": (int, 600),
    "VLLM_HOST_IP": (str, ""),
    "VLLM_NO_USAGE_STATS": (_is_on, True),
    "VLLM_PP_LAYER_PARTITION": (str, None),
    "VLLM_SERVER_DEV_MODE": (_is_on, False),
    "VLLM_WORKER_MULTIPROC_METHOD": (str, "spawn"),
}


def is_set(name: str) -> bool:
    """Whether the environment sets the variable; `AttributeError` if it is unknown."""
    return _variable(name).source() is not None


def __getattr__(name: str) -> Any:
    if name == "environment_variables":  # name -> function that returns its value
        return {one: variable.get for one, variable in _known().items()}
    return _variable(name).get()


def _variable(name: str) -> env.Variable:
    known = _known()
    if name not in known:
        raise AttributeError(
            f"Quire reads no environment variable {name}{did_you_mean(name, known)}"
        )
    return known[name]


def _known() -> dict[str, env.Variable]:
    known = {one: variable for variable in env.REGISTRY for one in variable.names}
    for one, (parse, default) in _WITHOUT_EFFECT.items():
        known[one] = env.Variable((one,), parse, default, env.WITHOUT_EFFECT[one][1])
    return known
