"""Engines of real models for tests, and a look at the core inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quire import EngineArgs, LLMEngine
from quire.engine.client import InprocClient
from quire.engine.core import EngineCore
from quire.kv_fit import KVFit
from quire.models.loading import facts_of
from quire.models.source import ModelSource
from quire.outputs import RequestOutput

BLOCK_SIZE = 8


def engine_args(folder: Path, **changes: Any) -> EngineArgs:
    """Float32 on the CPU, small blocks, token ids in and out."""
    defaults: dict[str, Any] = {
        "dtype": "float32",
        "device": "cpu",
        "block_size": BLOCK_SIZE,
        "max_num_seqs": 8,
        "max_logprobs": -1,
        "skip_tokenizer_init": True,
        "use_tqdm_on_load": False,
    }
    return EngineArgs(model=str(folder), **{**defaults, **changes})


def fewest_blocks(args: EngineArgs) -> int:
    """As many KV blocks as one request of full length needs, and the null block."""
    config = args.create_engine_config()
    layout = facts_of(ModelSource.of(config.model), config.device.device).kv_layout
    return KVFit.of(config, layout).num_blocks_for(config.model.max_model_len) + 1


def core_of(engine: LLMEngine) -> EngineCore:
    """The core of an engine that runs in this process."""
    assert isinstance(engine._client, InprocClient)
    core = engine._client._core
    assert isinstance(core, EngineCore)
    return core


def run_to_end(engine: LLMEngine) -> dict[str, RequestOutput]:
    """Step until all requests have ended; no block may be lost in any step, nor kept at the end."""
    finished: dict[str, RequestOutput] = {}
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished:
                finished[output.request_id] = output
        core_of(engine).check_integrity()
    stats = engine.stats()
    assert stats.num_free_blocks == stats.num_blocks - 1
    assert stats.num_running == stats.num_waiting == 0
    return finished
