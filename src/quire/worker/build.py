"""Composition root of a rank: makes the runner, its KV memory and its graphs.

What they are made of depends on the configuration and is decided here, once. Which model it is has
been decided in `models.loading`.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from functools import partial

import torch
from tqdm import tqdm

from quire.config import EngineConfig
from quire.dtypes import DTYPES
from quire.heap import unwatched_heap
from quire.kernels.rehearsal import rehearse
from quire.models.decoder import Decoder
from quire.models.loading import LoadedModel
from quire.sampling.sampler import Sampler
from quire.worker.batch_builder import BatchBuilder
from quire.worker.buckets import GraphSizes
from quire.worker.device_errors import probe_of
from quire.worker.forward_graphs import ForwardGraphs
from quire.worker.grammar_rows import GrammarRows
from quire.worker.graph_batches import GraphBatches, first_full_group
from quire.worker.graph_inputs import GraphInputs
from quire.worker.graph_masks import GraphMasks
from quire.worker.graphs import Graphs, NoGraphs
from quire.worker.kv_memory import KVMemory
from quire.worker.model_runner import ModelRunner
from quire.worker.prefix_sharing import PrefixSharing
from quire.worker.prompt_logprobs import PromptLogprobs
from quire.worker.readback import Readbacks
from quire.worker.recorder import GraphRecorder, Record, Replay
from quire.worker.result_ring import ResultRing
from quire.worker.rows import Rows
from quire.worker.sample_graphs import SampleGraphs
from quire.worker.step_graphs import NoSharing, Sharing, StepGraphs
from quire.worker.step_timeout import StepTimeout

# The most logits that exist at once, on a GPU at least this share of its memory. A large batch of a
# large vocabulary is sampled in parts, each of which reads the head's weights again.
MAX_SAMPLED_LOGITS_BYTES = 64 << 20
MAX_SAMPLED_LOGITS_SHARE = 1 / 512
# Prompt log-probabilities need several temporaries of the logits' size.
MAX_PROMPT_LOGITS_BYTES = 64 << 20
FLOAT32_BYTES = 4


def build_kv_memory(config: EngineConfig, loaded: LoadedModel, num_blocks: int) -> KVMemory:
    """``num_blocks`` blocks for the model's attention layers, in the cache's dtype."""
    return KVMemory(
        loaded.kv_layout,
        num_blocks=num_blocks,
        block_size=config.cache.block_size,
        dtype=DTYPES[config.kv_dtype],
        device=torch.device(config.device.device),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Capture:
    """Which graphs a runner gets, and how they are captured."""

    sizes: GraphSizes
    record: Record
    show: bool  # a progress bar


def capture_of(config: EngineConfig, loaded: LoadedModel) -> Capture | None:
    """None where every step runs operation by operation."""
    if not captures_graphs(config, loaded):
        return None
    return Capture(
        sizes=graph_sizes(config, loaded), record=GraphRecorder(), show=config.load.use_tqdm
    )


def rehearse_graphs(config: EngineConfig, loaded: LoadedModel) -> None:
    """Compile all that graphs need at the same time; without graphs do nothing. It is nearly all
    that there is to compile."""
    if not captures_graphs(config, loaded):
        return
    assert isinstance(loaded.model, Decoder)  # whose steps are captured
    smaller = replace(loaded, model=loaded.model.with_a_layer_of_each_kind())
    sizes = graph_sizes(config, loaded).some_of_each_kind()
    capture = Capture(sizes=sizes, record=_run_once, show=False)

    def build() -> None:
        build_runner(config, smaller, build_kv_memory(config, loaded, num_blocks=1), capture)

    with unwatched_heap():  # so that the collection below looks only at what is new
        rehearse(build)
        gc.collect()  # frees rows and graphs, which form cycles, before memory is measured
    torch.cuda.empty_cache()


def _run_once(run: Replay) -> Replay:
    run()
    return _nothing


def _nothing() -> None:
    """The replay of what was only rehearsed."""


def build_runner(
    config: EngineConfig, loaded: LoadedModel, kv: KVMemory, capture: Capture | None
) -> ModelRunner:
    """The runner over a loaded model and its KV memory; with graphs, if ``capture`` is given."""
    device = torch.device(config.device.device)
    max_rows, vocab_size = config.scheduler.max_num_seqs, config.model.vocab_size
    rows = Rows(
        max_rows=max_rows,
        max_model_len=config.model.max_model_len,
        num_groups=len(loaded.kv_layout.groups),
        block_size=config.cache.block_size,
        device=device,
    )
    timeout = StepTimeout(config.device.step_timeout_s)
    grammars = GrammarRows(max_rows=max_rows, vocab_size=vocab_size, timeout=timeout)
    sampler = Sampler(
        max_rows=max_rows,
        vocab_size=vocab_size,
        device=device,
        token_ids=rows.token_ids,
        masks=grammars,
    )
    prompt_logprobs = PromptLogprobs(
        loaded.model,
        rows,
        positions_per_pass=_rows_in(MAX_PROMPT_LOGITS_BYTES, config),
    )
    return ModelRunner(
        model=loaded.model,
        sampler=sampler,
        rows=rows,
        kv=kv,
        builder=BatchBuilder(
            rows,
            kv,
            max_tokens=max(config.scheduler.max_num_batched_tokens, max_rows),
            device=device,
        ),
        graphs=(
            NoGraphs()
            if capture is None
            else _graphs(config, loaded, rows, kv, sampler, prompt_logprobs, grammars, capture)
        ),
        prompt_logprobs=prompt_logprobs,
        readbacks=Readbacks(device, timeout),
        probe=probe_of(device),
        rows_per_pass=rows_per_pass(config),
        grammars=grammars,
    )


def captures_graphs(config: EngineConfig, loaded: LoadedModel) -> bool:
    """Whether steps are captured: on a GPU, unless the user forbids it or the model cannot be."""
    on_gpu = config.device.device == "cuda" and not config.device.enforce_eager
    return on_gpu and loaded.captured_hidden_size is not None


def graph_sizes(config: EngineConfig, loaded: LoadedModel) -> GraphSizes:
    """The buckets of the steps that graphs compute."""
    return GraphSizes.of(
        max_rows=config.scheduler.max_num_seqs,
        max_tokens=config.scheduler.max_num_batched_tokens,
        layer_bytes=loaded.weight_bytes / len(loaded.kv_layout.layers),
    )


def rows_per_pass(config: EngineConfig) -> int:
    """How many rows are sampled at once in steps by operation."""
    num_bytes = MAX_SAMPLED_LOGITS_BYTES
    if config.device.device == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory
        num_bytes = max(num_bytes, int(memory * MAX_SAMPLED_LOGITS_SHARE))
    return min(config.scheduler.max_num_seqs, _rows_in(num_bytes, config))


def _rows_in(num_bytes: int, config: EngineConfig) -> int:
    return max(1, num_bytes // (config.model.vocab_size * FLOAT32_BYTES))


@torch.inference_mode()
def _graphs(
    config: EngineConfig,
    loaded: LoadedModel,
    rows: Rows,
    kv: KVMemory,
    sampler: Sampler,
    prompt_logprobs: PromptLogprobs,
    grammars: GrammarRows,
    capture: Capture,
) -> Graphs:
    from quire.kernels.triton import lookup
    from quire.kernels.triton.bitmask import apply_bitmask
    from quire.kernels.triton.deliver import deliver

    assert loaded.captured_hidden_size is not None
    sizes, device = capture.sizes, rows.token_ids.device
    num_slots = config.scheduler.steps_in_flight + 1
    hidden = torch.zeros(
        (sizes.max_rows, loaded.captured_hidden_size),
        dtype=DTYPES[config.model.dtype],
        device=device,
    )
    inputs = _graph_inputs(config, sizes, rows, num_slots)
    results = ResultRing(
        inputs.ring, max_rows=sizes.max_rows, of_rows=rows.token_ids, deliver=deliver
    )
    masks = GraphMasks(
        grammars,
        max_rows=sizes.max_rows,
        num_slots=num_slots,
        apply_bitmask=apply_bitmask,
        device=device,
    )
    record, model = capture.record, loaded.model
    batches = GraphBatches(rows, kv, lookup, max_tokens=sizes.max_tokens)
    graphs = StepGraphs(
        sizes=sizes,
        inputs=inputs,
        forwards=ForwardGraphs(
            model=model, batches=batches, inputs=inputs, hidden=hidden, record=record
        ),
        samples=SampleGraphs(
            model=model,
            sampler=sampler,
            inputs=inputs,
            results=results,
            hidden=hidden,
            record=record,
            masks=masks,
        ),
        results=results,
        hidden=hidden,
        sampler=sampler,
        sharing=_sharing(rows, kv),
        prompt_logprobs=prompt_logprobs,
        masks=masks,
    )
    show = partial(tqdm, desc="Capturing graphs", disable=not capture.show, leave=False)
    graphs.capture_at_start(show)
    return graphs


def _graph_inputs(
    config: EngineConfig, sizes: GraphSizes, rows: Rows, num_slots: int
) -> GraphInputs:
    from quire.kernels.triton.fetch import fetch

    return GraphInputs(
        sizes,
        spare_row=rows.spare_row,
        max_length=config.model.max_model_len,
        num_slots=num_slots,
        fetch=fetch,
        device=rows.token_ids.device,
    )


def _sharing(rows: Rows, kv: KVMemory) -> Sharing:
    group = first_full_group(kv.layout)
    if group is None:
        return NoSharing()
    return PrefixSharing(
        max_rows=rows.spare_row,
        width=rows.block_tables.shape[2],
        block_size=kv.block_size,
        group=group,
    )
