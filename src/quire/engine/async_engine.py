"""AsyncLLM: `generate` is an async iterator, one per request, as many as you like at once.

The core runs in a process of its own or in a thread of this one; `output_router.py` brings its
outputs back. A consumer that stops iterating aborts its request.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from quire.args import EngineArgs
from quire.config import EngineConfig
from quire.engine.client import EngineClient
from quire.engine.core_loop import BUILD_CORE
from quire.engine.front import Front, load_front_tokenizer, parse_one_prompt, refuse_not_built
from quire.engine.llm_engine import refuse_stat_loggers
from quire.engine.messages import BLOCK_MAP, RESET_PREFIX_CACHE, STATS, Query
from quire.engine.model_view import ModelConfigView
from quire.engine.older_calls import takes_older_form
from quire.engine.output_router import OutputCollector, OutputRouter
from quire.engine.process import ProcessClient
from quire.engine.thread import ThreadClient
from quire.engine.tokenizer_handle import TokenizerHandle
from quire.engine.vllm_view import InnerEngineView, VllmConfigView
from quire.errors import EngineDeadError
from quire.not_built import TellsWhatIsNotBuilt
from quire.outputs import RequestOutput
from quire.prompts import ParsedPrompt, PromptType
from quire.sampling_params import BeamSearchParams, RequestOutputKind, SamplingParams
from quire.step_output import EngineFacts, EngineStats

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

T = TypeVar("T")
OpenClient = Callable[[EngineConfig], EngineClient]


class AsyncLLM(TellsWhatIsNotBuilt):
    """An engine for asyncio programs; usable from several event loops."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        multiprocess_mode: bool = True,
        build: str = BUILD_CORE,
        open_client: OpenClient | None = None,  # instead of the two above
        number: int = 0,  # of this engine within one server, so that random answers differ
    ) -> None:
        self.config = config
        tokenizer = load_front_tokenizer(config.model)
        if open_client is None:
            make_client = ProcessClient if multiprocess_mode else ThreadClient
            self._client: EngineClient = make_client(config, build)
        else:
            self._client = open_client(config)
        self._front = Front(config, self._client.facts, tokenizer, number)
        self.model_config: ModelConfigView = self._front.model_config  # users may assign their own
        self._router = OutputRouter(self._client, self._front)
        self._router.start()
        self._close = weakref.finalize(self, self._router.close)

    @classmethod
    def from_engine_args(
        cls,
        engine_args: EngineArgs,
        start_engine_loop: bool = True,
        usage_context: object = None,
        stat_loggers: object = None,
        *,
        multiprocess_mode: bool = True,
    ) -> AsyncLLM:
        """Make an engine from arguments. It starts at once: ``start_engine_loop`` and
        ``usage_context`` are ignored."""
        refuse_stat_loggers(stat_loggers)
        return cls(engine_args.create_engine_config(), multiprocess_mode=multiprocess_mode)

    async def generate(
        self,
        prompt: PromptType | None,
        sampling_params: SamplingParams | BeamSearchParams | None,
        request_id: str,
        prompt_token_ids: list[int] | None = None,  # here in older versions
        lora_request: object = None,
        *,
        prompt_text: str | None = None,
        tokenization_kwargs: dict[str, Any] | None = None,
        trace_headers: object = None,
        priority: int = 0,
        data_parallel_rank: int | None = None,
        session_id: str | None = None,
        kv_hints: object = None,
        reasoning_ended: bool | None = None,
        reasoning_parser_kwargs: dict[str, Any] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        """The outputs of one request as they come, in the form that ``output_kind`` says.

        ``sampling_params=None`` means the model's defaults. A smaller ``priority`` is scheduled
        sooner; values other than 0 need an engine with ``scheduling_policy="priority"``. Outputs
        that arrive while the consumer is busy are merged into one. ``ValueError`` if the request
        cannot be served or its id is in use, `EngineDeadError` if the engine has stopped. A request
        that fails alone raises nothing: its last output has ``finish_reason="error"`` and the cause
        in ``error``; with FINAL_ONLY it is the only one and has no tokens.
        """
        collector = await self.add_request(
            request_id,
            prompt,
            sampling_params,
            lora_request=lora_request,
            tokenization_kwargs=tokenization_kwargs,
            trace_headers=trace_headers,
            priority=priority,
            data_parallel_rank=data_parallel_rank,
            session_id=session_id,
            prompt_text=prompt_text,
            kv_hints=kv_hints,
            prompt_token_ids=prompt_token_ids,
            reasoning_ended=reasoning_ended,
            reasoning_parser_kwargs=reasoning_parser_kwargs,
        )
        finished = False
        try:
            while not finished:
                output = await collector.get()
                finished = output.finished
                yield output
        finally:
            if not finished:
                self._router.leave(collector)

    @takes_older_form
    async def add_request(
        self,
        request_id: str,
        prompt: PromptType | None,
        params: SamplingParams | BeamSearchParams | None,
        arrival_time: float | None = None,
        lora_request: object = None,
        tokenization_kwargs: dict[str, Any] | None = None,
        trace_headers: object = None,
        priority: int = 0,
        data_parallel_rank: int | None = None,
        session_id: str | None = None,
        prompt_text: str | None = None,
        kv_hints: object = None,
        prompt_token_ids: list[int] | None = None,
        reasoning_ended: bool | None = None,
        reasoning_parser_kwargs: dict[str, Any] | None = None,
    ) -> OutputCollector:
        """Start a request; the collector's ``get`` returns its outputs. A smaller ``priority`` is
        scheduled sooner; values other than 0 need an engine with ``scheduling_policy="priority"``.
        """
        refuse_not_built(
            lora_request=lora_request,
            tokenization_kwargs=tokenization_kwargs,
            data_parallel_rank=data_parallel_rank,
            trace_headers=trace_headers,
            session_id=session_id,
            kv_hints=kv_hints,
            reasoning_ended=reasoning_ended,
            reasoning_parser_kwargs=reasoning_parser_kwargs,
        )
        parsed = parse_one_prompt(prompt, prompt_token_ids, prompt_text)
        return await self.add_parsed(
            request_id, parsed, params, arrival_time=arrival_time, priority=priority
        )

    async def add_parsed(
        self,
        request_id: str,
        prompt: ParsedPrompt,
        params: SamplingParams | BeamSearchParams | None,
        *,
        arrival_time: float | None = None,
        priority: int = 0,
    ) -> OutputCollector:
        """`add_request` for a prompt that is already parsed."""
        if isinstance(params, BeamSearchParams):
            params = params.to_sampling_params()
        grammar = params.grammar if isinstance(params, SamplingParams) else None
        if grammar is not None:
            await self._front.inputs.verify_beside(grammar)
        request = self._front.process(
            request_id, prompt, params, arrival_time=arrival_time, priority=priority
        )
        joins_deltas = (
            isinstance(params, SamplingParams) and params.output_kind is RequestOutputKind.DELTA
        )
        collector = OutputCollector(request_id, joins_deltas=joins_deltas)
        self._router.add(request, collector)
        return collector

    async def abort(self, request_id: str | Iterable[str], *, keeps_tokens: bool = False) -> None:
        """Abort requests; their consumers get a last output with finish reason "abort".

        It holds what they would have seen by now: nothing, with FINAL_ONLY. With ``keeps_tokens``
        the core first sends the tokens it still keeps, so the output comes a step later.
        """
        ids = [request_id] if isinstance(request_id, str) else request_id
        self._router.abort(ids, keeps_tokens=keeps_tokens)

    async def check_health(self) -> None:
        """Raise `EngineDeadError` if the engine has stopped."""
        if self._router.dead_error is not None:
            raise EngineDeadError(str(self._router.dead_error))

    async def reset_prefix_cache(
        self, reset_running_requests: bool = False, reset_connector: bool = False
    ) -> bool:
        """Drop all cached prefixes; False if running requests still use blocks. They cannot be
        reset themselves, and there is no connector: True for either is a ``ValueError``."""
        refuse_not_built(
            reset_running_requests=reset_running_requests, reset_connector=reset_connector
        )
        return await self._ask(RESET_PREFIX_CACHE)

    async def stats(self) -> EngineStats:
        return await self._ask(STATS)

    async def block_map(self) -> bytes:
        """One byte per KV block: 0 free, 1 in use, 2 shared, 3 cached."""
        return await self._ask(BLOCK_MAP)

    async def do_log_stats(self) -> None:
        logger.info("%s", await self.stats())

    async def is_tracing_enabled(self) -> bool:
        """False: only `quire serve` sends traces."""
        return False

    async def get_model_config(self) -> ModelConfigView:
        return self.model_config

    def get_tokenizer(self) -> TokenizerHandle:
        """The tokenizer; may be awaited, as older versions had to be."""
        return TokenizerHandle(self._front)

    def get_default_sampling_params(self) -> SamplingParams:
        """What the model's generation config recommends."""
        return self._front.default_sampling_params()

    def get_num_unfinished_requests(self) -> int:
        return self._router.num_requests

    def shutdown(self, timeout: float | None = None) -> None:
        """End the core at once, whatever ``timeout`` says; requests in flight fail with
        `EngineDeadError`."""
        self._close()
        self._front.inputs.close()

    async def _ask(self, query: Query[T]) -> T:
        """Ask the core in a daemon thread: one of asyncio's pool would block the program's exit if
        the core hung."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # whoever stops waiting must not disturb the thread

        def run() -> None:
            try:
                future.set_result(self._client.ask(query))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, name=f"quire-{query.name}", daemon=True).start()
        return await asyncio.wrap_future(future)

    @property
    def vllm_config(self) -> VllmConfigView:
        """A view for programs written for vLLM: it has ``model_config`` and no other part."""
        return VllmConfigView(self.model_config)

    @property
    def engine(self) -> InnerEngineView:
        """A view of this engine: older vLLM versions had an inner engine with ``model_config``,
        ``tokenizer`` and ``model_executor``."""
        return InnerEngineView(self)

    @property
    def front(self) -> Front:
        return self._front

    @property
    def facts(self) -> EngineFacts:
        return self._client.facts

    @property
    def tokenizer(self) -> TokenizerHandle | None:
        return TokenizerHandle(self._front) if self._front.tokenizer is not None else None

    @tokenizer.setter
    def tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._front.set_tokenizer(tokenizer)

    @property
    def is_running(self) -> bool:
        return self._router.dead_error is None

    @property
    def is_stopped(self) -> bool:
        return not self.is_running

    @property
    def errored(self) -> bool:
        return not self.is_running

    @property
    def dead_error(self) -> EngineDeadError | None:
        return self._router.dead_error


AsyncLLMEngine = AsyncLLM  # its older name
