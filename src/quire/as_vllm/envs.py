"""What programs read as ``vllm.envs.VLLM_...``: the variables that Quire reads too, as they are."""

from __future__ import annotations

from typing import Any

from quire import env
from quire.near_names import did_you_mean


def __getattr__(name: str) -> Any:
    known = {one: variable for variable in env.REGISTRY for one in variable.names}
    if name not in known:
        raise AttributeError(
            f"Quire reads no environment variable {name}{did_you_mean(name, known)}"
        )
    return known[name].get()
