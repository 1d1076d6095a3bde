"""Composition root of a rank: the only module of the worker that imports feature packages.

Everything that depends on the configuration is decided here, once.
"""

from __future__ import annotations

from functools import partial

import torch
from tqdm import tqdm

from quire.config import EngineConfig
from quire.models.decoder import Decoder
from quire.models.loading import LoadedModel
from quire.sampling.sampler import Sampler
from quire.worker.batch_builder import BatchBuilder
from quire.worker.decode_graphs import DecodeGraphs, GraphRecorder, NoDecodeGraphs
from quire.worker.kv_memory import KVMemory
from quire.worker.model_runner import ModelRunner
from quire.worker.prompt_logprobs import PromptLogprobs
from quire.worker.rows import Rows

# Logits that exist at once; a large batch of a large vocabulary is sampled in parts.
MAX_SAMPLED_LOGITS_BYTES = 256 << 20
# Prompt log-probabilities need several temporaries of the logits' size.
MAX_PROMPT_LOGITS_BYTES = 64 << 20
FLOAT32_BYTES = 4
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def build_kv_memory(config: EngineConfig, loaded: LoadedModel, num_blocks: int) -> KVMemory:
    """``num_blocks`` blocks for the model's attention layers, in the model's dtype."""
    return KVMemory(
        loaded.kv_layout,
        num_blocks=num_blocks,
        block_size=config.cache.block_size,
        dtype=DTYPES[config.model.dtype],
        device=torch.device(config.device.device),
    )


def build_runner(
    config: EngineConfig, loaded: LoadedModel, kv: KVMemory, *, captures: bool
) -> ModelRunner:
    """The runner over a loaded model and its KV memory; ``captures``: with graphs, if it can."""
    device = torch.device(config.device.device)
    max_rows, vocab_size = config.scheduler.max_num_seqs, config.model.vocab_size
    rows = Rows(
        max_rows=max_rows,
        max_model_len=config.model.max_model_len,
        num_groups=len(loaded.kv_layout.groups),
        block_size=config.cache.block_size,
        device=device,
    )
    builder = BatchBuilder(
        rows, kv, max_tokens=max(config.scheduler.max_num_batched_tokens, max_rows), device=device
    )
    logits_row_bytes = vocab_size * FLOAT32_BYTES
    return ModelRunner(
        model=loaded.model,
        sampler=Sampler(
            max_rows=max_rows, vocab_size=vocab_size, device=device, token_ids=rows.token_ids
        ),
        rows=rows,
        kv=kv,
        builder=builder,
        decode_steps=(
            _capture(config, loaded.model, rows, builder)
            if captures and can_capture(config, loaded.model)
            else NoDecodeGraphs()
        ),
        prompt_logprobs=PromptLogprobs(
            loaded.model,
            rows,
            positions_per_pass=max(1, MAX_PROMPT_LOGITS_BYTES // logits_row_bytes),
        ),
        rows_per_pass=max(1, MAX_SAMPLED_LOGITS_BYTES // logits_row_bytes),
    )


def can_capture(config: EngineConfig, model: Decoder) -> bool:
    return (
        config.device.device == "cuda" and not config.device.enforce_eager and model.can_be_captured
    )


@torch.inference_mode()
def _capture(
    config: EngineConfig, model: Decoder, rows: Rows, builder: BatchBuilder
) -> DecodeGraphs:
    from quire.kernels.triton.argmax import Argmax

    return DecodeGraphs(
        model=model,
        rows=rows,
        builder=builder,
        choose=Argmax(rows.spare_row, config.model.vocab_size, rows.token_ids.device),
        record=GraphRecorder(),
        progress=partial(
            tqdm, desc="Capturing graphs", disable=not config.load.use_tqdm, leave=False
        ),
    )
