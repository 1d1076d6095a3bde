"""LLM: generate text offline, many prompts at once.

Returns the outputs of each call in the order of its prompts. `engine/offline_requests.py` makes the
requests, `engine/offline.py` runs the loop of the `LLMEngine`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from quire.args import BUNDLED_MODEL, EngineArgs
from quire.chat_template import ChatOptions, Conversation
from quire.chat_template_choice import check_name, load_chat_template
from quire.config import DEFAULT_GPU_MEMORY_UTILIZATION
from quire.engine.front import refuse_not_built
from quire.engine.guided_options import GuidedOptions, with_guided_options
from quire.engine.input_processor import ProcessedRequest
from quire.engine.llm_engine import LLMEngine
from quire.engine.model_view import ModelConfigView
from quire.engine.offline import OfflineRunner
from quire.engine.offline_requests import OfflineRequests, Params
from quire.engine.progress import Progress, UseTqdm
from quire.heap import rare_collections
from quire.model_files import own_chat_template
from quire.not_built import TellsWhatIsNotBuilt
from quire.outputs import BeamSearchOutput, BeamSearchSequence, RequestOutput
from quire.prompts import ParsedPrompt, PromptType, parse_prompts
from quire.reasoning import ReasoningFormat, reasoning_format
from quire.sampling_limits import int_in
from quire.sampling_params import BeamSearchParams, RequestOutputKind, SamplingParams
from quire.step_output import EngineStats

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Prompts = PromptType | Sequence[PromptType]


class LLM(TellsWhatIsNotBuilt):
    """A model, ready to continue prompts. Use it in a ``with`` statement, or call `close`."""

    def __init__(
        self,
        model: str = str(BUNDLED_MODEL),
        *,
        tokenizer: str | None = None,
        tokenizer_mode: str = "auto",
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        chat_template: str | None = None,
        seed: int | None = 0,
        gpu_memory_utilization: float = DEFAULT_GPU_MEMORY_UTILIZATION,
        hf_token: bool | str | None = None,
        hf_overrides: dict[str, Any] | Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        kv_cache_memory_bytes: int | str | None = None,
        multiprocess_mode: bool = False,
        reasoning_parser: str | None = None,
        **kwargs: Any,  # the other fields of EngineArgs, which checks them
    ) -> None:
        """Start an engine; without ``model`` it serves the bundled one.

        ``multiprocess_mode`` runs the engine core in a process of its own. ``reasoning_parser``
        names how the model marks its thoughts, which ``thinking_token_budget`` and grammars need
        to know; outputs keep the whole text. All other arguments are those of `EngineArgs`.
        """
        reasoning = _reasoning(reasoning_parser, skip_tokenizer_init, kwargs)
        args = EngineArgs(
            model=model,
            tokenizer=tokenizer,
            tokenizer_mode=tokenizer_mode,
            skip_tokenizer_init=skip_tokenizer_init,
            trust_remote_code=trust_remote_code,
            tensor_parallel_size=tensor_parallel_size,
            dtype=dtype,
            revision=revision,
            tokenizer_revision=tokenizer_revision,
            seed=seed,
            gpu_memory_utilization=gpu_memory_utilization,
            hf_token=hf_token,
            hf_overrides=hf_overrides,
            kv_cache_memory_bytes=kv_cache_memory_bytes,
            **kwargs,
        )
        template = load_chat_template(chat_template, is_typed=False)
        if not skip_tokenizer_init:
            check_name(template, partial(own_chat_template, args))
        engine = LLMEngine.from_engine_args(args, enable_multiprocessing=multiprocess_mode)
        self._use(engine, template, reasoning)

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs) -> LLM:
        return cls.from_engine(LLMEngine.from_engine_args(engine_args))

    @classmethod
    def from_engine(cls, engine: LLMEngine) -> LLM:
        """An LLM on an engine that exists already; it closes the engine when it is closed."""
        llm = cls.__new__(cls)
        llm._use(engine)
        return llm

    def generate(
        self,
        prompts: Prompts | None = None,
        sampling_params: Params | None = None,
        prompt_token_ids: Sequence[Any] | None = None,
        use_tqdm: UseTqdm = None,
        lora_request: object = None,
        *,
        priority: Sequence[int] | None = None,
        multi_modal_data: object = None,
        guided_options_request: GuidedOptions | Sequence[GuidedOptions] | None = None,
        prompt_adapter_request: object = None,
        tokenization_kwargs: object = None,
        mm_processor_kwargs: object = None,
    ) -> list[RequestOutput]:
        """Continue the prompts; one output each, in their order.

        Parameters are one for all, or a list with one for each, or the model's defaults. A prompt
        or parameter that cannot be served is a ``ValueError``, and then nothing goes on running.

        ``priority`` is a list with an integer for each prompt: smaller is sooner, and among equals
        whoever came first. Other than 0 it needs an engine with ``scheduling_policy="priority"``,
        else it is a ``ValueError``.

        A request that fails later does not raise, since the others' outputs would be lost: its
        completions end with ``finish_reason="error"`` and the cause in ``error``, and a warning
        names its prompt. Look at ``finish_reason`` before using a text. Such a completion is
        usually empty, whatever was computed before: outputs leave the engine at their end.

        ``use_tqdm`` is whether to show a progress bar, or what makes one as ``tqdm.tqdm`` does;
        None shows it in terminals and notebooks, True also where standard error is a file.

        ``guided_options_request`` is the oldest form of ``structured_outputs`` of `SamplingParams`:
        a dict such as ``{"guided_regex": "[ab]+"}`` for all prompts, or a list with one for each.
        """
        refuse_not_built(
            lora_request=lora_request,
            multi_modal_data=multi_modal_data,
            prompt_adapter_request=prompt_adapter_request,
            tokenization_kwargs=tokenization_kwargs,
            mm_processor_kwargs=mm_processor_kwargs,
        )
        if isinstance(prompt_token_ids, bool) or callable(prompt_token_ids):
            raise ValueError(
                "the third argument of generate is prompt_token_ids, which cannot be "
                f"{prompt_token_ids!r}; for the progress bar write use_tqdm=... by its name"
            )
        parsed = parse_prompts(prompts, prompt_token_ids)
        params = self._guided(sampling_params, guided_options_request, len(parsed))
        return self._run(parsed, params, priority, use_tqdm)

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        sampling_params: Params | None = None,
        use_tqdm: UseTqdm = None,
        lora_request: object = None,
        priority: Sequence[int] | None = None,
        chat_template: str | Path | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Any] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        tokenization_kwargs: object = None,
        mm_processor_kwargs: object = None,
        *,
        documents: Sequence[Mapping[str, Any]] | None = None,
        guided_options_request: GuidedOptions | Sequence[GuidedOptions] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation or a list of them; one output each.

        A conversation is a list of messages as in OpenAI's API: dicts with a ``role`` and a
        ``content``, which is a text or a list of text parts. ``sampling_params``, ``use_tqdm``,
        ``priority`` and ``guided_options_request`` are those of `generate`, and so are the outputs
        and errors; what the template cannot render is a ``ValueError`` too.

        chat_template: a file, Jinja text, or the name of a template that the model or Quire brings,
            in place of the model's default.
        chat_template_content_format: "string", "openai" (contents are lists of parts), or "auto":
            what the template reads.
        add_generation_prompt: end the prompt with the head of the assistant's answer.
        continue_final_message: leave the last message open, and the output continues it; needs
            ``add_generation_prompt=False``.
        tools: functions that the model may call, as OpenAI's API has them, or Python functions. The
            output is the model's text, in which its calls stand as it writes them.
        chat_template_kwargs: more variables for the template, such as ``enable_thinking``. What the
            template does not read, of these or of tools and documents, is a ``ValueError``.
        documents: dicts, for templates that show documents.
        lora_request, tokenization_kwargs, mm_processor_kwargs: not supported; other than None, or
            a list of None, a ``ValueError``.
        """
        refuse_not_built(
            lora_request=lora_request,
            tokenization_kwargs=tokenization_kwargs,
            mm_processor_kwargs=mm_processor_kwargs,
        )
        options = ChatOptions(
            template=load_chat_template(chat_template, is_typed=False),
            content_format=chat_template_content_format,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
            documents=documents,
            template_kwargs=chat_template_kwargs,
        )
        parsed = self._requests.render(messages, options)
        params = self._guided(sampling_params, guided_options_request, len(parsed))
        return self._run(parsed, params, priority, use_tqdm)

    def stream(
        self,
        prompts: Prompts | None = None,
        sampling_params: Params | None = None,
        *,
        prompt_token_ids: Sequence[Any] | None = None,
        priority: Sequence[int] | None = None,
    ) -> Iterator[RequestOutput]:
        """As `generate`, but outputs come as they are made, each with only what is new.

        The outputs of several prompts are interleaved; ``request_id`` counts up in their order.
        Leaving the loop early aborts what still runs. ``priority`` is that of `generate`.
        """
        parsed = parse_prompts(prompts, prompt_token_ids)
        kind = RequestOutputKind.DELTA
        return self._runner.run(self._requests.all(parsed, sampling_params, kind, priority))

    def stream_chat(
        self,
        messages: Conversation | Sequence[Conversation],
        sampling_params: Params | None = None,
        *,
        priority: Sequence[int] | None = None,
        chat_template: str | Path | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Any] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
    ) -> Iterator[RequestOutput]:
        """As `chat`, but outputs come as they are made, each with only what is new.

        Several conversations are interleaved, and leaving the loop aborts them, as in `stream`.
        """
        options = ChatOptions(
            template=load_chat_template(chat_template, is_typed=False),
            content_format=chat_template_content_format,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
            documents=documents,
            template_kwargs=chat_template_kwargs,
        )
        parsed = self._requests.render(messages, options)
        kind = RequestOutputKind.DELTA
        return self._runner.run(self._requests.all(parsed, sampling_params, kind, priority))

    def beam_search(
        self,
        prompts: Prompts,
        params: BeamSearchParams,
        lora_request: object = None,
        use_tqdm: UseTqdm = False,
        concurrency_limit: int | None = None,
        priority: Sequence[int] | None = None,
    ) -> list[BeamSearchOutput]:
        """The best ``params.beam_width`` continuations of each prompt, best first.

        ``concurrency_limit`` is the most prompts that run at once; ``priority`` and ``use_tqdm``
        are those of `generate`. Prompts that fail have beams
        with finish reason "error", and a warning says why. ``logprobs`` of a sequence is always
        empty: only the sum ``cum_logprob`` of all its tokens is known.
        """
        refuse_not_built(lora_request=lora_request)
        if not isinstance(params, BeamSearchParams):
            raise ValueError(
                f"params must be BeamSearchParams, got {type(params).__name__}; pass "
                "BeamSearchParams(beam_width=..., max_tokens=...), or call generate to sample"
            )
        if concurrency_limit is not None and not int_in(1)(concurrency_limit):
            raise ValueError(
                f"concurrency_limit must be at least 1, got {concurrency_limit!r}; give an "
                "integer, or None for no limit"
            )
        requests = self._requests.all(
            parse_prompts(prompts), params, RequestOutputKind.FINAL_ONLY, priority
        )
        at_once = concurrency_limit or max(len(requests), 1)
        found: list[BeamSearchOutput] = []
        for first in range(0, len(requests), at_once):
            part = requests[first : first + at_once]
            outputs = self._outputs(part, len(part), use_tqdm)
            _warn_of_failures(outputs, first)
            found += [self._beams(output, params) for output in outputs]
        return found

    def get_tokenizer(self) -> PreTrainedTokenizerBase:
        return self.llm_engine.get_tokenizer()

    def set_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Use another tokenizer from now on; no request may be running. Structured outputs are
        refused then, unless it has the same tokens."""
        if not callable(tokenizer):
            raise TypeError(
                f"tokenizer must be a tokenizer, got {tokenizer!r}; load it with "
                "transformers.AutoTokenizer.from_pretrained, or name it as LLM(tokenizer=...)"
            )
        self.llm_engine.tokenizer = tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What the model's generation config recommends; `generate` uses it by default."""
        return self.llm_engine.get_default_sampling_params()

    @property
    def default_sampling_params(self) -> dict[str, Any]:
        """The model's recommended values that differ from `SamplingParams`' defaults."""
        ours, plain = self.get_default_sampling_params(), SamplingParams()
        names = [field.name for field in dataclasses.fields(plain)]
        return {
            name: getattr(ours, name)
            for name in names
            if getattr(ours, name) != getattr(plain, name)
        }

    @property
    def request_counter(self) -> Iterator[int]:
        """A counter of numbers that, as strings, are unused as request ids of this LLM."""
        return self._requests.numbers

    def reset_prefix_cache(
        self, reset_running_requests: bool = False, reset_connector: bool = False
    ) -> bool:
        """Clear the prefix cache; False if running requests still use blocks. They cannot be reset
        themselves, and there is no connector: True for either is a ``ValueError``."""
        return self.llm_engine.reset_prefix_cache(reset_running_requests, reset_connector)

    def stats(self) -> EngineStats:
        """The state of the engine now."""
        return self.llm_engine.stats()

    def block_map(self) -> bytes:
        """One byte a KV block: 0 free, 1 in use, 2 shared, 3 cached."""
        return self.llm_engine.block_map()

    @property
    def model_config(self) -> ModelConfigView:
        return self.llm_engine.model_config

    def close(self) -> None:
        """End the engine and free its memory; a second call does nothing."""
        self.llm_engine.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _use(
        self,
        engine: LLMEngine,
        chat_template: str | None = None,
        reasoning: ReasoningFormat | None = None,
    ) -> None:
        self.llm_engine = engine
        self._runner = OfflineRunner(engine)
        self._requests = OfflineRequests(
            engine, self._runner.tokens_at_once, chat_template=chat_template, reasoning=reasoning
        )

    def _guided(
        self,
        params: Params | None,
        options: GuidedOptions | Sequence[GuidedOptions] | None,
        num_prompts: int,
    ) -> Params | None:
        """``params`` with the call's ``guided_options_request``, if there is one."""
        if options is None:
            return params
        if params is None:
            params = self.get_default_sampling_params()
        return with_guided_options(params, options, num_prompts)

    def _run(
        self,
        prompts: list[ParsedPrompt],
        params: Params | None,
        priorities: Sequence[int] | None,
        use_tqdm: UseTqdm,
    ) -> list[RequestOutput]:
        requests = self._requests.in_turn(prompts, params, RequestOutputKind.FINAL_ONLY, priorities)
        if priorities is not None:
            requests = iter(list(requests))  # the scheduler must see all priorities at once
        outputs = self._outputs(requests, len(prompts), use_tqdm)
        _warn_of_failures(outputs, 0)
        return outputs

    def _outputs(
        self,
        requests: Iterable[ProcessedRequest],
        count: int,
        use_tqdm: UseTqdm,
    ) -> list[RequestOutput]:
        """The finished outputs, in the order of the requests."""
        finished = []
        outputs = self._runner.run(requests)
        progress = Progress(count, use_tqdm)
        with rare_collections(), contextlib.closing(outputs), progress:
            for output in outputs:
                if output.finished:
                    finished.append(output)
                    progress.add(output)
        return sorted(finished, key=lambda output: int(output.request_id))

    def _beams(self, output: RequestOutput, params: BeamSearchParams) -> BeamSearchOutput:
        """The beams of ``output``, with the prompt prepended as vLLM's users expect."""
        tokenizer = self.llm_engine.front.tokenizer
        prompt = list(output.prompt_token_ids or [])
        sequences = []
        for beam in output.outputs:
            tokens = prompt + list(beam.token_ids)
            hides_last = beam.finish_reason == "stop" and not params.include_stop_str_in_output
            shown = tokens[:-1] if hides_last else tokens
            text = None
            if tokenizer is not None:
                text = str(tokenizer.decode(shown, skip_special_tokens=params.skip_special_tokens))
            sequences.append(
                BeamSearchSequence(
                    tokens=tokens,
                    logprobs=beam.logprobs or [],
                    cum_logprob=beam.cumulative_logprob or 0.0,
                    text=text,
                    finish_reason=beam.finish_reason,
                    stop_reason=beam.stop_reason,
                    score=beam.score,
                )
            )
        return BeamSearchOutput(sequences)


def _reasoning(
    name: str | None, has_no_tokenizer: bool, others: dict[str, Any]
) -> ReasoningFormat | None:
    """The format of thoughts, if any; takes its name out of ``others`` if it is there."""
    config = others.get("structured_outputs_config")
    if isinstance(config, Mapping) and config.get("reasoning_parser"):
        inner = config["reasoning_parser"]
        if name and name != inner:
            raise ValueError(
                f"reasoning_parser is {name!r}, and {inner!r} in structured_outputs_config; give "
                "only one of them"
            )
        name = inner
        rest = {key: value for key, value in config.items() if key != "reasoning_parser"}
        others["structured_outputs_config"] = rest or None
    if not name:
        return None
    if has_no_tokenizer:
        raise ValueError(
            f"reasoning_parser={name!r} needs a tokenizer, and skip_tokenizer_init=True loads "
            "none; leave one of them out"
        )
    return reasoning_format(name)


def _warn_of_failures(outputs: list[RequestOutput], first_prompt: int) -> None:
    for i, output in enumerate(outputs, first_prompt):
        for completion in output.outputs:
            if completion.error is not None:
                logger.warning(
                    "prompts[%d] failed, its output has finish_reason 'error': %s",
                    i,
                    completion.error,
                )
