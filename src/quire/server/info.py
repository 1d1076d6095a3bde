"""What this server is: versions, configuration, memory and start-up. No keys, no paths."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

import quire
from quire.config import EngineConfig
from quire.server.args import ServerArgs
from quire.server.error_responses import json_response
from quire.server.errors import without_paths
from quire.server.state import ServerState, state_of
from quire.step_output import EngineFacts

router = APIRouter(tags=["models"])

_PACKAGES = ("torch", "transformers", "tokenizers", "fastapi", "uvicorn", "numpy", "triton")
# Secrets, and values about this machine rather than about the server.
_KEPT_BACK = frozenset(
    {
        *("api_key", "api_key_file", "ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "uds"),
        *("host", "chat_template", "otlp_traces_endpoint", "middleware"),
    }
)
# Long, and found in the model's own files.
_LEFT_OUT = frozenset({"hf_config", "generation_config", "path", "tokenizer"})


@router.get("/server_info")
async def server_info(request: Request) -> Response:
    """What a bug report needs; engine, memory and model once they are known."""
    state = state_of(request)
    return json_response(_clean(_info(state)))


def _info(state: ServerState) -> dict[str, Any]:
    content: dict[str, Any] = {
        "version": quire.__version__,
        "versions": _versions(),
        "state": state.phase.value,
        "uptime_seconds": round(time.time() - state.started, 1),
        "server": _server_args(state.args),
        "process": {"rss_bytes": _resident_bytes()},
    }
    if state.models is not None:
        names, length = list(state.models.names), state.models.max_model_len
        content["model"] = {"names": names, "max_model_len": length}
    if state.engine is not None:
        facts = state.engine.facts
        content["engine"] = _engine_config(state.engine.config)
        content["memory"] = _memory(facts)
        content["startup_seconds"] = {k: round(v, 3) for k, v in facts.phase_seconds.items()}
    return content


def _resident_bytes() -> int:
    """The resident memory of this process."""
    num_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return num_pages * os.sysconf("SC_PAGE_SIZE")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _server_args(args: ServerArgs) -> dict[str, Any]:
    return {name: value for name, value in vars(args).items() if name not in _KEPT_BACK}


def _engine_config(config: EngineConfig) -> dict[str, Any]:
    sections = {}
    for section in dataclasses.fields(config):
        part = getattr(config, section.name)
        sections[section.name] = {
            item.name: getattr(part, item.name)
            for item in dataclasses.fields(part)
            if item.name not in _LEFT_OUT
        }
    return sections


def _memory(facts: EngineFacts) -> dict[str, Any]:
    return {
        "weight_bytes": facts.weight_bytes,
        "kv_cache_bytes": facts.kv_cache_bytes,
        "num_blocks": facts.num_blocks,
        "block_size": facts.block_size,
        "kv_capacity_tokens": facts.kv_capacity_tokens,
        "max_concurrency": round(facts.max_concurrency, 2),
        "max_num_seqs": facts.max_num_seqs,
        "attention_backend": facts.attention_backend,
    }


def _clean(value: Any) -> Any:
    """The value in types of JSON, with each path cut to its last name."""
    if isinstance(value, dict):
        return {str(key): _clean(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(one) for one in value]
    if isinstance(value, Path):
        return value.name
    return without_paths(value) if isinstance(value, str) else value
