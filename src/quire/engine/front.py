"""The text side of an engine: tokenizer, input and output processor, default sampling parameters.

The same for every front end; knows nothing about where the core runs or who waits for outputs.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from quire.config import EngineConfig, ModelConfig
from quire.engine.input_processor import InputProcessor, ProcessedRequest
from quire.engine.model_view import ModelConfigView
from quire.engine.output_processor import OutputProcessor
from quire.prompts import ParsedPrompt, PromptType, parse_prompts
from quire.request import Watch
from quire.sampling_params import BeamSearchParams, RequestOutputKind, SamplingParams
from quire.step_output import EngineFacts
from quire.tokenizer.loading import load_tokenizer
from quire.tokenizer.vocabulary import eos_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NOT_BUILT = {
    "lora_request": "LoRA adapters are not supported yet; merge the adapter into the weights",
    "prompt_adapter_request": "prompt adapters are not supported; use merged weights",
    "multi_modal_data": "multi-modal prompts are not supported yet; pass text or token ids",
    "mm_processor_kwargs": "multi-modal prompts are not supported yet; pass text or token ids",
    "guided_options_request": "guided decoding is not supported yet",
    "tokenization_kwargs": "tokenize the prompt yourself and pass its token ids",
    "data_parallel_rank": "there is one engine core only",
    "reasoning_parser_kwargs": "reasoning is not parsed here",
}

# Keys of generation_config.json that are sampling parameters, and their names here.
_GENERATION_CONFIG = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
}


def load_front_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase | None:
    if config.skip_tokenizer_init:
        return None
    return load_tokenizer(
        config.tokenizer, mode=config.tokenizer_mode, trust_remote_code=config.trust_remote_code
    )


class Front:
    """Everything of an engine but its core and its users."""

    def __init__(
        self, config: EngineConfig, facts: EngineFacts, tokenizer: PreTrainedTokenizerBase | None
    ) -> None:
        # The core may have made the context shorter, so that it fits into memory.
        self._model = dataclasses.replace(config.model, max_model_len=facts.max_model_len)
        self.model_config = ModelConfigView(self._model)
        self._use(tokenizer)

    def process(
        self,
        request_id: str,
        prompt: ParsedPrompt,
        params: SamplingParams | BeamSearchParams,
        *,
        arrival_time: float | None = None,
        priority: int = 0,
    ) -> ProcessedRequest:
        """A request for the core, or ``ValueError``. Nobody watches one that is final-only."""
        if isinstance(params, BeamSearchParams):
            params = params.to_sampling_params()
        final_only = params.output_kind is RequestOutputKind.FINAL_ONLY
        return self.inputs.process(
            request_id,
            prompt,
            params,
            arrival_time=time.time() if arrival_time is None else arrival_time,
            priority=priority,
            watch=Watch.AT_END if final_only else Watch.EVERY_STEP,
        )

    def default_sampling_params(self) -> SamplingParams:
        """The model's generation config in the words of `SamplingParams`."""
        given = self._model.generation_config
        return SamplingParams.from_optional(
            **{name: given.get(key) for key, name in _GENERATION_CONFIG.items() if key in given}
        )

    def require_tokenizer(self) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise ValueError(
                "the engine has no tokenizer, since it was made with skip_tokenizer_init=True; "
                "leave that out to get one"
            )
        return self.tokenizer

    def set_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Use another tokenizer from the next request on; none may be running."""
        if len(self.outputs) > 0:
            raise ValueError(
                f"the tokenizer cannot be changed while {len(self.outputs)} requests run; wait "
                "for their end or abort them"
            )
        self._use(tokenizer)

    def _use(self, tokenizer: PreTrainedTokenizerBase | None) -> None:
        self.tokenizer = tokenizer
        eos = eos_token_ids(self._model.hf_config, self._model.generation_config, tokenizer)
        self.inputs = InputProcessor(self._model, tokenizer, eos)
        self.outputs = OutputProcessor(tokenizer)


def parse_one_prompt(prompt: PromptType | None, token_ids: list[int] | None = None) -> ParsedPrompt:
    """The prompt of one request; ``token_ids`` is the older way to give it."""
    parsed = parse_prompts(prompt, token_ids)
    if len(parsed) != 1:
        raise ValueError(f"a request has one prompt, got {len(parsed)}; add one request for each")
    return parsed[0]


def refuse_not_built(**given: object) -> None:
    """Raise ``ValueError`` for an argument that is set and that nothing would heed."""
    for name, value in given.items():
        if value is not None and value != [] and value != {}:
            raise ValueError(f"{name} cannot be used: {_NOT_BUILT[name]}")
