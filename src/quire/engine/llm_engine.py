"""LLMEngine: add requests, call `step`, get outputs. The caller owns the loop.

Knows requests, their outputs and the client of the core; the text side is `front.py`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from quire.args import EngineArgs
from quire.config import EngineConfig
from quire.engine.client import InprocClient
from quire.engine.core_loop import BUILD_CORE
from quire.engine.front import Front, load_front_tokenizer, parse_one_prompt, refuse_not_built
from quire.engine.held_signals import HeldSignals
from quire.engine.input_processor import ProcessedRequest
from quire.engine.messages import (
    BLOCK_MAP,
    RESET_PREFIX_CACHE,
    STATS,
    Abort,
    AddRequest,
    Finish,
)
from quire.engine.model_view import ModelConfigView
from quire.engine.older_calls import takes_older_form
from quire.engine.process import ProcessClient
from quire.engine.tokenizer_handle import TokenizerHandle
from quire.engine.vllm_view import VllmConfigView
from quire.errors import EngineDeadError
from quire.kernels.preload import preload_kernels
from quire.not_built import TellsWhatIsNotBuilt
from quire.outputs import RequestOutput
from quire.prompts import PromptType
from quire.sampling_params import BeamSearchParams, SamplingParams
from quire.step_output import EngineFacts, EngineStats

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_LAST_STEP_S = 10.0  # how long the program's exit waits for a running step


class LLMEngine(TellsWhatIsNotBuilt):
    """One engine that is stepped by its user, with the core in this process or in its own."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        multiprocess_mode: bool = False,
        build: str = BUILD_CORE,
    ) -> None:
        self.config = config
        tokenizer = load_front_tokenizer(config.model)  # fails sooner than the weights would
        make_client = ProcessClient if multiprocess_mode else InprocClient
        self._client: InprocClient | ProcessClient = make_client(config, build)
        self._front = Front(config, self._client.facts, tokenizer)
        self.model_config: ModelConfigView = self._front.model_config  # users may assign their own
        self._held: list[RequestOutput] = []  # outputs of a step that a signal interrupted
        self._gate = _StepGate()
        weakref.finalize(self, self._gate.close)  # called when the program ends, too

    @classmethod
    def from_engine_args(
        cls,
        engine_args: EngineArgs,
        usage_context: object = None,
        stat_loggers: object = None,
        enable_multiprocessing: bool = False,
    ) -> LLMEngine:
        """Make an engine from arguments; ``usage_context`` is ignored."""
        refuse_stat_loggers(stat_loggers)
        if not enable_multiprocessing:
            preload_kernels(engine_args.device)
        return cls(engine_args.create_engine_config(), multiprocess_mode=enable_multiprocessing)

    @takes_older_form
    def add_request(
        self,
        request_id: str,
        prompt: PromptType | None,
        params: SamplingParams | BeamSearchParams | None,
        arrival_time: float | None = None,
        lora_request: object = None,
        tokenization_kwargs: dict[str, Any] | None = None,
        trace_headers: object = None,
        priority: int = 0,
        session_id: str | None = None,
        prompt_text: str | None = None,
        kv_hints: object = None,
        *,
        prompt_token_ids: list[int] | None = None,
    ) -> str:
        """Queue a request. ``ValueError`` if it cannot be served or its id is in use.

        ``params=None`` means the model's defaults. A smaller ``priority`` is scheduled sooner;
        values other than 0 need an engine with ``scheduling_policy="priority"``. The older order
        works too: ``request_id, prompt, params, prompt_token_ids, arrival_time, lora_request``.
        """
        refuse_not_built(
            lora_request=lora_request,
            tokenization_kwargs=tokenization_kwargs,
            trace_headers=trace_headers,
            session_id=session_id,
            kv_hints=kv_hints,
        )
        request = self._front.process(
            request_id,
            parse_one_prompt(prompt, prompt_token_ids, prompt_text),
            params,
            arrival_time=arrival_time,
            priority=priority,
        )
        self.submit([request])
        return request_id

    def submit(self, requests: list[ProcessedRequest]) -> None:
        """Queue requests that the input processor has made, all or none: none if a signal handler
        that had to wait raises."""
        added: list[str] = []
        try:
            with HeldSignals():
                for request in requests:
                    self._add(request)
                    added.append(request.engine.request_id)
        except BaseException:
            self.abort_request(added)
            raise

    def step(self) -> list[RequestOutput]:
        """Run one step of the core, or wait for one; returns the changed outputs, finished or not.

        A request that fails raises nothing: its completions end with ``finish_reason="error"``, the
        cause in ``error``, and the text so far, if outputs are returned while it runs.

        Signal handlers, such as those of Ctrl-C and of time limits, are delayed until a step in
        this process is complete, or the core's message is read, so that nothing is lost or left
        half done; what they raise, this raises. While waiting for a core process they are called
        at once.
        """
        self.wait()
        with HeldSignals(), self._gate:
            if len(self._front.outputs) > 0:
                self._held += self._receive()
        outputs, self._held = self._held, []
        return outputs

    def begin(self) -> None:
        """Let an idle core start the requests queued so far; `step` returns their outputs.
        Signal handlers are delayed as in `step`."""
        with HeldSignals(), self._gate:
            self._client.begin()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait up to ``timeout_s`` seconds (None: no limit) until `step` would not block; True if
        it would not. Other threads may use the engine meanwhile, but not step it."""
        if self._held or len(self._front.outputs) == 0:
            return True
        return self._client.wait(timeout_s)

    def abort_request(self, request_ids: str | Iterable[str]) -> None:
        """End requests without further output. Ids that are not running are ignored."""
        ids = [request_ids] if isinstance(request_ids, str) else list(request_ids)
        running = [request_id for request_id in ids if request_id in self._front.outputs]
        with HeldSignals():
            for request_id in running:
                self._front.outputs.abort(request_id)
            if running:
                with contextlib.suppress(EngineDeadError):  # then nothing runs
                    self._client.send(Abort(running))

    def has_unfinished_requests(self) -> bool:
        return len(self._front.outputs) > 0 or bool(self._held)

    def get_num_unfinished_requests(self) -> int:
        return len(self._front.outputs)

    @property
    def front(self) -> Front:
        return self._front

    @property
    def facts(self) -> EngineFacts:
        """Facts that were determined while the engine started, such as the number of KV blocks."""
        return self._client.facts

    @property
    def tokenizer(self) -> TokenizerHandle | None:
        """The tokenizer, also under the name ``tokenizer.tokenizer``; both can be assigned."""
        return TokenizerHandle(self._front) if self._front.tokenizer is not None else None

    @tokenizer.setter
    def tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._front.set_tokenizer(tokenizer)

    def get_tokenizer(self) -> PreTrainedTokenizerBase:
        return self._front.require_tokenizer()

    def get_model_config(self) -> ModelConfigView:
        return self.model_config

    @property
    def vllm_config(self) -> VllmConfigView:
        """A view for programs written for vLLM: it has ``model_config`` and no other part."""
        return VllmConfigView(self.model_config)

    def get_default_sampling_params(self) -> SamplingParams:
        """What the model's generation config recommends."""
        return self._front.default_sampling_params()

    def reset_prefix_cache(
        self, reset_running_requests: bool = False, reset_connector: bool = False
    ) -> bool:
        """Drop all cached prefixes; False if running requests still use blocks. They cannot be
        reset themselves, and there is no connector: True for either is a ``ValueError``."""
        refuse_not_built(
            reset_running_requests=reset_running_requests, reset_connector=reset_connector
        )
        return self._client.ask(RESET_PREFIX_CACHE)

    def stats(self) -> EngineStats:
        return self._client.ask(STATS)

    def block_map(self) -> bytes:
        """One byte per KV block: 0 free, 1 in use, 2 shared, 3 cached."""
        return self._client.ask(BLOCK_MAP)

    def do_log_stats(self) -> None:
        logger.info("%s", self.stats())

    def close(self) -> None:
        """End the core and free its memory; a second call does nothing."""
        self._client.close()
        self._front.inputs.close()

    def _add(self, request: ProcessedRequest) -> None:
        self._front.outputs.add(request)
        try:
            self._client.send(AddRequest(request.engine))
        except BaseException:
            self._front.outputs.abort(request.engine.request_id)
            raise

    def _receive(self) -> list[RequestOutput]:
        step = self._front.outputs.process(self._client.receive())
        for request_id, index in step.to_abort:
            self._client.send(Finish(request_id, index))
        return step.outputs


def refuse_stat_loggers(given: object) -> None:
    """Raise ``ValueError`` if there are any, since nothing would call them."""
    if given:
        raise ValueError(
            f"stat_loggers cannot be used: no engine calls any, got {given!r}; leave it out, and "
            "read stats() or the /metrics of `quire serve`"
        )


class _StepGate:
    """Lets one thread step at a time, and after `close` only the thread that ends the program.

    A daemon thread that Python stops inside torch code would end the program with SIGABRT instead
    of its own exit status.
    """

    def __init__(self) -> None:
        self._stepping = threading.RLock()  # what a step calls may step again
        self._only: int | None = None  # the thread that may still step; None: all
        self._pid = os.getpid()

    def __enter__(self) -> None:
        self._stepping.acquire()
        if self._only not in (None, threading.get_ident()):
            self._stepping.release()
            raise SystemExit  # ends this thread silently

    def __exit__(self, *error: object) -> None:
        self._stepping.release()

    def close(self) -> None:
        """Let no other thread begin a step, and wait up to `_LAST_STEP_S` for a running one. Does
        nothing in a fork, which has none of these threads."""
        if os.getpid() != self._pid:
            return
        self._only = threading.get_ident()
        if self._stepping.acquire(timeout=_LAST_STEP_S):
            self._stepping.release()
