"""Composition root of the engine: from a config to a core that can step."""

from __future__ import annotations

import gc
import logging
from functools import partial

from quire.bytecode import tell_if_not_kept
from quire.config import EngineConfig, ModelConfig
from quire.engine.core import EngineCore
from quire.engine.core_loop import ReportPhase
from quire.engine.front import load_front_tokenizer
from quire.engine.grammar_gate import GrammarGate
from quire.engine.start import StartWatch
from quire.executor.inline import InlineExecutor
from quire.executor.protocol import Executor
from quire.kv_cache.manager import KVCacheManager
from quire.kv_fit import KVFit, fit_max_model_len
from quire.resolve import describe
from quire.scheduler.scheduler import Scheduler
from quire.step_output import EngineFacts
from quire.structured import TokenBytes
from quire.structured_outputs.compile import GrammarCompiler
from quire.structured_outputs.token_table import TokenTable, token_table
from quire.structured_outputs.workshop import Workshop
from quire.tokenizer.vocabulary import eos_token_ids

logger = logging.getLogger(__name__)


def build_core(config: EngineConfig, report: ReportPhase = lambda phase: None) -> EngineCore:
    """Load the model, compile its kernels, allocate the KV cache, and log once what was chosen."""
    watch = StartWatch(report)
    watch.enter("weights")
    executor = InlineExecutor(config)
    watch.enter("kernels")
    executor.compile_kernels()
    watch.enter("memory")
    layout = executor.facts.kv_layout
    num_blocks = _num_blocks(config, executor)
    config = fit_max_model_len(config, layout, num_blocks)
    watch.enter("KV cache and graphs")
    kv_cache_bytes = executor.initialize_kv_cache(num_blocks)
    watch.enter("warm-up")
    executor.warm_up()
    if config.device.device == "cuda":
        gc.collect()  # else the first requests pay for collecting the start's garbage
    facts = EngineFacts(
        num_blocks=num_blocks,
        block_size=config.cache.block_size,
        max_num_seqs=config.scheduler.max_num_seqs,
        max_model_len=config.model.max_model_len,
        weight_bytes=executor.facts.weight_bytes,
        kv_cache_bytes=kv_cache_bytes,
        attention_backend=executor.facts.attention_backend,
        phase_seconds=watch.phase_seconds(),
    )
    logger.info("engine ready\n%s", describe(config, facts))
    tell_if_not_kept()
    manager = KVCacheManager(
        num_blocks=num_blocks,
        block_size=config.cache.block_size,
        windows=tuple(group.window for group in layout.groups),
        enable_prefix_caching=config.cache.enable_prefix_caching,
    )
    scheduler = Scheduler(config.scheduler, manager, config.model.max_model_len)
    compiler = GrammarCompiler(partial(_token_table, config.model))
    gate = GrammarGate(Workshop(compiler), TokenBytes(lambda: compiler.table.tokens))
    return EngineCore(scheduler, executor, facts, config.scheduler.steps_in_flight, gate)


def _token_table(model: ModelConfig) -> TokenTable:
    """The token table of the tokenizer that the front end starts with, made for the first grammar.
    If a tokenizer with other tokens replaces it there, the front end refuses grammars."""
    tokenizer = load_front_tokenizer(model)
    if tokenizer is None:
        raise ValueError("structured_outputs need a tokenizer; leave skip_tokenizer_init out")
    ends = eos_token_ids(model.hf_config, model.generation_config, tokenizer)
    return token_table(tokenizer, model.vocab_size, ends)


def _num_blocks(config: EngineConfig, executor: Executor) -> int:
    """The configured number of KV blocks, or as many as memory holds and all rows could ever
    fill."""
    if config.cache.num_blocks is not None:
        return config.cache.num_blocks
    fit = KVFit.of(config, executor.facts.kv_layout)
    usable = fit.bytes_for(config.model.max_model_len, config.scheduler.max_num_seqs)
    return fit.num_blocks_in(min(executor.available_kv_bytes(), usable))
