"""The text side of an engine: tokenizer, input and output processor, default sampling parameters.

Shared by all front ends; knows nothing about where the core runs or who waits for outputs.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import random
from functools import partial
from typing import TYPE_CHECKING

from quire.chat_templates import give_chat_template
from quire.config import EngineConfig, ModelConfig
from quire.engine.input_processor import InputProcessor, ProcessedRequest
from quire.engine.model_view import ModelConfigView
from quire.engine.observer import NoObserver, RequestObserver
from quire.engine.output_processor import OutputProcessor
from quire.generation_config import default_sampling_params, heeded, not_heeded
from quire.not_built import LORA, PROMPT_ADAPTER
from quire.prompts import ParsedPrompt, PromptType, parse_prompts
from quire.sampling_params import BeamSearchParams, SamplingParams
from quire.step_output import EngineFacts
from quire.structured_outputs.token_table import TokenTable, token_table
from quire.tokenizer.loading import load_tokenizer
from quire.tokenizer.vocabulary import Vocabulary, eos_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_NO_THOUGHTS = (
    "AsyncLLM has no reasoning parser; use LLM(reasoning_parser=...) or `quire serve "
    "--reasoning-parser`"
)
_NOT_BUILT = {
    "lora_request": LORA,
    "prompt_adapter_request": PROMPT_ADAPTER,
    "multi_modal_data": "multi-modal prompts are not supported yet; pass text or token ids",
    "mm_processor_kwargs": "multi-modal prompts are not supported yet; pass text or token ids",
    "tokenization_kwargs": "set SamplingParams(truncate_prompt_tokens=...), or tokenize the prompt "
    "yourself and pass its token ids",
    "data_parallel_rank": "there is only one engine core; leave it out",
    "trace_headers": "only `quire serve --otlp-traces-endpoint` sends traces",
    "session_id": "sessions are not supported; the prefix cache finds earlier prompts by itself",
    "kv_hints": "the KV cache takes no hints; leave them out",
    "reasoning_ended": _NO_THOUGHTS,
    "reasoning_parser_kwargs": _NO_THOUGHTS,
    "reset_running_requests": "abort the requests that run, or wait for their end",
    "reset_connector": "there is no KV connector",
}


def load_front_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase | None:
    if config.skip_tokenizer_init:
        return None
    tokenizer = load_tokenizer(
        config.tokenizer, mode=config.tokenizer_mode, trust_remote_code=config.trust_remote_code
    )
    give_chat_template(tokenizer, config.hf_config, config.architecture, config.model)
    return tokenizer


class Front:
    """Everything of an engine except its core and its users."""

    def __init__(
        self,
        config: EngineConfig,
        facts: EngineFacts,
        tokenizer: PreTrainedTokenizerBase | None,
        number: int = 0,  # of this front end within one server
    ) -> None:
        # The core may have made the context shorter, so that it fits into memory.
        self._model = dataclasses.replace(config.model, max_model_len=facts.max_model_len)
        self._policy = config.scheduler.policy
        self._serials = itertools.count()
        self._observer: RequestObserver = NoObserver()
        # Requests without a seed get one from here: runs of one engine seed repeat each other,
        # and front ends of one server do not.
        self._seeds = random.Random(self._model.seed + (number << 64))
        self._core_tokenizer = tokenizer  # the core has loaded one like it, and keeps it
        self._tell_of_generation_config()
        self.model_config = ModelConfigView(self._model)
        self._use(tokenizer)

    def process(
        self,
        request_id: str,
        prompt: ParsedPrompt,
        params: SamplingParams | BeamSearchParams | None,
        *,
        arrival_time: float | None = None,
        priority: int = 0,
    ) -> ProcessedRequest:
        """A request for the core, or ``ValueError``. Without parameters it gets the default."""
        params = self.default_sampling_params() if params is None else checked_params(params)
        if priority != 0 and self._policy != "priority":
            raise ValueError(
                f"priority={priority!r} has no effect under scheduling_policy={self._policy!r}; "
                'leave it at 0, or start the engine with scheduling_policy="priority"'
            )
        return self.inputs.process(
            request_id,
            prompt,
            params,
            serial=next(self._serials),
            arrival_time=arrival_time,
            priority=priority,
        )

    def default_sampling_params(self) -> SamplingParams:
        """The model's generation config as `SamplingParams`."""
        return self._default_params.clone()

    @functools.cached_property
    def _default_params(self) -> SamplingParams:
        return default_sampling_params(self._model.generation_config)

    def require_tokenizer(self) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise ValueError(
                "the engine has no tokenizer, since it was made with skip_tokenizer_init=True; "
                "leave that out to get one"
            )
        return self.tokenizer

    def set_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Use another tokenizer from the next request on; ``ValueError`` while requests run. If its
        tokens differ from the core's, requests that depend on them, such as grammars, are refused.
        """
        if len(self.outputs) > 0:
            raise ValueError(
                f"the tokenizer cannot be changed while {len(self.outputs)} requests run; wait "
                "for their end or abort them"
            )
        self._use(tokenizer)

    def observe(self, observer: RequestObserver) -> None:
        """Report every request to ``observer`` from now on; it replaces the one before."""
        self._observer = self.outputs.observer = observer

    def _tell_of_generation_config(self) -> None:
        defaults = heeded(self._model.generation_config)
        if defaults:
            logger.info("default sampling parameters of this model: %s", ", ".join(defaults))
        settings = not_heeded(self._model.generation_config)
        if settings:
            logger.warning(
                "the model's generation config has settings that are not supported; outputs may "
                "differ from those of its authors: %s",
                ", ".join(settings),
            )

    def _use(self, tokenizer: PreTrainedTokenizerBase | None) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = None if tokenizer is None else Vocabulary(tokenizer)
        has_tokens_of_core = functools.cache(
            partial(_have_same_tokens, self._model, tokenizer, self._core_tokenizer)
        )
        self.inputs = InputProcessor(
            self._model,
            self.vocabulary,
            _eos(self._model, tokenizer),
            self._seeds,
            has_tokens_of_core,
        )
        self.outputs = OutputProcessor(self.vocabulary)
        self.outputs.observer = self._observer


def _have_same_tokens(
    model: ModelConfig, one: PreTrainedTokenizerBase | None, other: PreTrainedTokenizerBase | None
) -> bool:
    """Whether a grammar means the same token ids to both."""
    if one is other:
        return True
    if one is None or other is None:
        return False
    return _table(model, one) == _table(model, other)


def _table(model: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> TokenTable:
    return token_table(tokenizer, model.vocab_size, _eos(model, tokenizer))


def _eos(model: ModelConfig, tokenizer: PreTrainedTokenizerBase | None) -> tuple[int, ...]:
    return eos_token_ids(model.hf_config, model.generation_config, tokenizer)


def parse_one_prompt(
    prompt: PromptType | None, token_ids: list[int] | None = None, text: str | None = None
) -> ParsedPrompt:
    """The prompt of one request; ``token_ids`` is the older way to give it. ``text`` is what the
    output shows as the prompt if the prompt is token ids."""
    parsed = parse_prompts(prompt, token_ids)
    if len(parsed) != 1:
        raise ValueError(f"a request has one prompt, got {len(parsed)}; add one request for each")
    if text is None:
        return parsed[0]
    if parsed[0].token_ids is None:
        raise ValueError("prompt_text goes with token ids, but the prompt is text; leave it out")
    return dataclasses.replace(parsed[0], text=text)


def checked_params(params: object) -> SamplingParams | BeamSearchParams:
    """``params`` unchanged; ``ValueError`` if they are of another type."""
    if isinstance(params, (SamplingParams, BeamSearchParams)):
        return params
    remedy = "write SamplingParams(**params)" if isinstance(params, dict) else "pass one of these"
    raise ValueError(
        f"sampling parameters must be SamplingParams or BeamSearchParams, got {params!r} "
        f"({type(params).__name__}); {remedy}"
    )


def refuse_not_built(**given: object) -> None:
    """Raise ``ValueError`` for an argument that is set but would have no effect."""
    for name, value in given.items():
        if not _asks_for_nothing(value):
            raise ValueError(f"{name} cannot be used: {_NOT_BUILT[name]}")


def _asks_for_nothing(value: object) -> bool:
    """Whether an argument is as good as not given; a list has an entry for each prompt."""
    if isinstance(value, (list, tuple)):
        return all(one is None for one in value)
    return value is None or value is False or value == {}
