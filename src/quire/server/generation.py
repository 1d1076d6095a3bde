"""The engine requests of one HTTP request: started together, merged, counted, and ended together.

Owns time limits and cancelling. Knows neither bodies nor the forms of answers: every generating
endpoint uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from quire.engine.async_engine import AsyncLLM
from quire.engine.output_router import OutputCollector
from quire.outputs import RequestOutput
from quire.prompts import ParsedPrompt
from quire.row_sampling import SettledParams
from quire.sampling_limits import MAX_N, RULES
from quire.sampling_params import SamplingParams
from quire.server.errors import bad_request, internal, timed_out, without_paths
from quire.server.input_phase import input_errors
from quire.server.state import ServerState
from quire.server.tickets import Ticket
from quire.server.time_limit import FLAG
from quire.server.usage import Usage

TIMED_OUT = "timeout"  # the stop reason of what a time limit cut off
_FIELDS = (*RULES, "priority")  # that the engine's errors may be about

_LAST_WORDS_S = 5.0  # for the core to report the tokens of a client that has disconnected

_News = tuple[int, RequestOutput]  # prompt index, output


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What an endpoint wants the engine to do."""

    prompts: Sequence[ParsedPrompt]  # with token ids
    params: SamplingParams
    priority: int = 0
    timeout_s: float | None = None  # until all of it has ended
    queue_timeout_s: float | None = None  # until the first token
    prompt_only: bool = False  # the one token that the engine makes is not shown
    arrived: float | None = None  # when the head of the request arrived, in event-loop time


@dataclass(slots=True)
class Generation:
    """Runs from `start` until `close`, which must be called, or until `outputs` has ended."""

    wanted: Wanted
    usage: Usage
    _ticket: Ticket
    _engine: AsyncLLM
    _ids: list[str] = field(default_factory=list)
    _collectors: list[OutputCollector] = field(default_factory=list)
    _timers: list[asyncio.TimerHandle] = field(default_factory=list)
    _cached: dict[int, int] = field(default_factory=dict)  # tokens, by prompt
    _aborting: asyncio.Task[None] | None = None
    _num_unfinished: int = 0
    _has_output: bool = False
    _limit: tuple[str, float] | None = None  # which time limit has passed
    _is_closed: bool = False

    @classmethod
    async def start(cls, state: ServerState, ticket: Ticket, wanted: Wanted) -> Generation:
        """Submit all prompts; if one is refused, abort the others and raise its error. The ticket
        is given back when the generation closes."""
        num_prompt_tokens = sum(len(one.token_ids or ()) for one in wanted.prompts)
        generation = cls(
            wanted=wanted,
            usage=Usage(prompt_tokens=num_prompt_tokens),
            _ticket=ticket,
            _engine=state.require_engine(),
        )
        ticket.running.num_prompt_tokens = num_prompt_tokens
        try:
            with input_errors(_FIELDS):
                _check_count(wanted)
                await generation._submit()
        except BaseException:
            await generation.close()
            raise
        generation._set_timers(state.args.request_timeout)
        ticket.running.cancel, ticket.running.drop = generation.cancel, generation.drop
        if ticket.is_cancelled:
            generation.cancel()
        return generation

    async def outputs(self) -> AsyncGenerator[_News, None]:
        """Outputs as they come, each with the index of its prompt, as the params' ``output_kind``.

        Raises `HTTPError` for a prompt that failed, and for a time limit that passed before there
        was any output. Closes itself.
        """
        try:
            if len(self._collectors) == 1:  # the usual case, with no task in between
                while self._num_unfinished:
                    yield 0, self._checked(0, await self._collectors[0].get())
            else:
                async for index, output in _merged(self._collectors):
                    yield index, self._checked(index, output)
        finally:
            await self.close()

    async def results(self) -> list[RequestOutput]:
        """The whole output of each prompt, in order."""
        whole: dict[int, RequestOutput] = {}
        async with contextlib.aclosing(self.outputs()) as outputs:
            async for index, output in outputs:
                if index in whole:
                    whole[index].add(output, aggregate=True)
                else:
                    whole[index] = output
        for output in whole.values():
            output.outputs.sort(key=lambda one: one.index)
        return [whole[index] for index in range(len(self._collectors))]

    def cancel(self) -> None:
        """Abort all; consumers get the output so far, with the finish reason "abort"."""
        if self._aborting is None:
            self._abort(keeps_tokens=True)

    def leave(self) -> None:
        """Abort all because the client has disconnected. The core reports the tokens so far, which
        are counted; it is waited for no longer than `_LAST_WORDS_S`."""
        if self._is_closed:
            return
        self.cancel()
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(_LAST_WORDS_S, self.drop))

    def drop(self) -> None:
        """Abort all at once, and discard the output so far."""
        self._abort(keeps_tokens=False)

    def _abort(self, *, keeps_tokens: bool) -> None:
        if not self._is_closed:
            abort = self._engine.abort(self._ids, keeps_tokens=keeps_tokens)
            self._aborting = asyncio.get_running_loop().create_task(abort)

    def pass_limit(self, name: str, seconds: float) -> None:
        """A time limit has passed: end with the output so far, or with 408 if there is none."""
        if name == "queue_timeout_s" and self._has_output:
            return
        self._limit = self._limit or (name, seconds)
        self.cancel()

    async def close(self) -> None:
        """Abort what still runs, and give the ticket back; a second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        for timer in self._timers:
            timer.cancel()
        try:
            if self._aborting is not None:
                await self._aborting
            if self._num_unfinished:
                await self._engine.abort(self._ids)
        finally:  # not before: the next request with the same id must not be aborted
            self._ticket.give_back()

    async def _submit(self) -> None:
        wanted, params = self.wanted, self.wanted.params
        is_many = len(wanted.prompts) > 1
        if is_many:
            params = SettledParams.of(params)
        for index, prompt in enumerate(wanted.prompts):
            own_id = self._ticket.request_id
            if is_many:  # random, so that no client's id can collide with it
                own_id = f"{own_id}-{index}-{uuid.uuid4().hex[:8]}"
                await asyncio.sleep(0)  # serve others in between: there may be a thousand
            collector = await self._engine.add_parsed(
                own_id, prompt, params, priority=wanted.priority
            )
            self._ids.append(own_id)
            self._collectors.append(collector)
            self._num_unfinished += 1

    def _set_timers(self, request_timeout: float | None) -> None:
        wanted, loop = self.wanted, asyncio.get_running_loop()
        now = loop.time()
        arrived = now if wanted.arrived is None else wanted.arrived
        limits = [
            (wanted.timeout_s, now, "timeout_s"),
            (wanted.queue_timeout_s, now, "queue_timeout_s"),
            (request_timeout, arrived, FLAG),
        ]
        for seconds, since, name in limits:
            if seconds is not None:
                end = since + seconds
                self._timers.append(loop.call_at(end, self.pass_limit, name, seconds))

    def _checked(self, index: int, output: RequestOutput) -> RequestOutput:
        """Count an output and return it; raise `HTTPError` if its prompt failed, or if a time limit
        passed before any output."""
        self._num_unfinished -= output.finished
        for one in output.outputs:
            if one.finish_reason == "error":
                if one.is_refusal:
                    raise bad_request(without_paths(f"The request cannot be served: {one.error}"))
                raise internal(f"The request failed while it ran: {one.error}")
            self._has_output = self._has_output or bool(one.token_ids)
            if one.finish_reason == "abort" and self._limit is not None:
                if not self._has_output:
                    raise timed_out(*self._limit)
                one.finish_reason, one.stop_reason = "length", TIMED_OUT
            if self.wanted.prompt_only:
                one.text, one.token_ids, one.logprobs = "", [], one.logprobs and []
                if one.finish_reason == "stop":  # on the token that is not shown
                    one.finish_reason, one.stop_reason = "length", None
        self._count(index, output)
        return output

    def _count(self, index: int, output: RequestOutput) -> None:
        params, usage = self.wanted.params, self.usage
        if params.is_ranked and output.metrics is not None:  # discarded ones count too
            usage.completion_tokens += output.metrics.num_generation_tokens
        else:
            usage.completion_tokens += sum(len(one.token_ids) for one in output.outputs)
        cached = output.num_cached_tokens or 0
        usage.cached_tokens += cached - self._cached.get(index, 0)
        self._cached[index] = cached
        self._ticket.running.num_output_tokens = usage.completion_tokens


def _check_count(wanted: Wanted) -> None:
    """400 if prompts times completions of each is more than `MAX_N`."""
    num_prompts = len(wanted.prompts)
    count = num_prompts * max(wanted.params.n, wanted.params.best_of or 0)
    if count > MAX_N:
        raise bad_request(
            f"The request asks for {count} completions, n for each of {num_prompts} prompts, but "
            f"at most {MAX_N} in all are allowed; send several requests.",
            "n",
        )


async def _merged(collectors: Sequence[OutputCollector]) -> AsyncGenerator[_News, None]:
    """The outputs of all collectors as they come; a task reads each, the first error ends all."""
    news: asyncio.Queue[_News | Exception] = asyncio.Queue()

    async def read(index: int, collector: OutputCollector) -> None:
        try:
            finished = False
            while not finished:
                output = await collector.get()
                finished = output.finished
                news.put_nowait((index, output))
        except Exception as error:
            news.put_nowait(error)

    readers = [asyncio.create_task(read(i, one)) for i, one in enumerate(collectors)]
    try:
        num_unfinished = len(collectors)
        while num_unfinished:
            one = await news.get()
            if isinstance(one, Exception):
                raise one
            num_unfinished -= one[1].finished
            yield one
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
