"""Turns what the engine core produced into what callers read: text, reasons, log-probabilities.

Owns the state of each unfinished request on the caller's side. Knows nothing about scheduling.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from quire.engine.completion_text import CompletionText, NoText, PlainText, StoppableText
from quire.engine.detokenizer import make_detokenizer
from quire.engine.input_processor import ProcessedRequest
from quire.engine.observer import CompletionEnd, NoObserver, RequestEnd, RequestObserver
from quire.engine.output_logprobs import to_dicts
from quire.engine.stop_strings import StopChecker
from quire.outputs import (
    CompletionOutput,
    PromptLogprobs,
    RequestOutput,
    RequestStateStats,
    SampleLogprobs,
)
from quire.request import FinishReason, Watch
from quire.sampling_params import RequestOutputKind
from quire.step import TokenLogprobs
from quire.step_output import CompletionDelta, CompletionTiming
from quire.tokenizer.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessedStep:
    """New outputs, and completions that the core must end because a stop string was found."""

    outputs: list[RequestOutput] = field(default_factory=list)
    to_abort: list[tuple[str, int]] = field(default_factory=list)  # (request id, completion index)


class OutputProcessor:
    """Deltas in, outputs out; at most one output per request and step."""

    def __init__(self, vocabulary: Vocabulary | None) -> None:
        self._vocabulary = vocabulary
        self._requests: dict[str, _Request] = {}
        self.observer: RequestObserver = NoObserver()

    def __len__(self) -> int:
        """The number of unfinished requests."""
        return len(self._requests)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._requests

    def is_watched(self, request_id: str) -> bool:
        """Whether the core sends every token of this unfinished request at once."""
        return self._requests[request_id].is_watched

    def add(self, request: ProcessedRequest) -> None:
        """Expect deltas of ``request``."""
        request_id = request.engine.request_id
        if request_id in self._requests:
            raise ValueError(
                f"request id {request_id!r} is in use; wait until that request has finished, or "
                "choose another id"
            )
        self._requests[request_id] = _Request(request, self._vocabulary)
        self.observer.request_started(request)

    def process(self, deltas: Iterable[CompletionDelta]) -> ProcessedStep:
        """Turn deltas into outputs; deltas of aborted requests, and of completions that ended here,
        are ignored."""
        step = ProcessedStep()
        changed: dict[str, _Request] = {}
        for delta in deltas:
            request = self._requests.get(delta.request_id)
            if request is None or not request.expects(delta):
                continue
            changed[delta.request_id] = request
            completion = request.take(delta)
            if completion.has_ended and delta.finish_reason is None:
                step.to_abort.append((delta.request_id, delta.index))
        for request_id, request in changed.items():
            output = request.output()
            if output is not None:
                step.outputs.append(output)
            if request.has_ended:
                del self._requests[request_id]
                self.observer.request_ended(request.end())
        return step

    def abort(self, request_id: str) -> list[RequestOutput]:
        """Abort a request; returns its last output, or nothing if there is no such request."""
        request = self._requests.pop(request_id, None)
        if request is None:
            return []
        request.abort()
        self.observer.request_ended(request.end())
        output = request.output()
        return [] if output is None else [output]

    def lose_all(self) -> None:
        """End all requests with an error: the core has died."""
        lost, self._requests = list(self._requests.values()), {}
        for request in lost:
            request.lose()
            self.observer.request_ended(request.end())


class _Request:
    """An unfinished request with all its completions."""

    def __init__(self, request: ProcessedRequest, vocabulary: Vocabulary | None) -> None:
        self._request = request
        self._engine = request.engine
        self._vocabulary = vocabulary
        self._prompt_logprobs = _without_targets(request)
        self._num_cached_tokens: int | None = None
        ranked = request.params.is_ranked
        self._num_best = request.params.n if ranked else None
        self._kind = RequestOutputKind.FINAL_ONLY if ranked else request.params.output_kind
        self._stream_interval = request.params.stream_interval or 1
        self._completions = [
            _Completion(index, request, vocabulary)
            for index in range(request.engine.num_completions)
        ]
        self._num_open = len(self._completions)
        self._news: dict[int, _Completion] = {}  # since the last output

    @property
    def is_watched(self) -> bool:
        return self._engine.watch is Watch.EVERY_STEP

    @property
    def has_ended(self) -> bool:
        return self._num_open == 0

    def expects(self, delta: CompletionDelta) -> bool:
        is_own = delta.serial == self._engine.serial
        return is_own and not self._completions[delta.index].has_ended

    def take(self, delta: CompletionDelta) -> _Completion:
        if delta.index == 0:  # the others share its blocks, which is no cache hit
            self._num_cached_tokens = delta.num_cached_tokens
        if delta.prompt_logprobs is not None:
            self._prompt_logprobs = [None, *to_dicts(delta.prompt_logprobs, self._vocabulary)]
        completion = self._news[delta.index] = self._completions[delta.index]
        completion.take(delta)
        self._num_open -= completion.has_ended
        return completion

    def abort(self) -> None:
        for index, completion in enumerate(self._completions):
            if not completion.has_ended:
                completion.abort()
                self._news[index] = completion
        self._num_open = 0

    def lose(self) -> None:
        for completion in self._completions:
            completion.lose()
        self._num_open = 0

    def output(self) -> RequestOutput | None:
        """The output for what is new since the last one; None if the caller should not see it
        yet."""
        changed = list(self._news.values())
        self._news.clear()
        if self._engine.beam is not None:
            self._drop_beams_that_never_were()
        finished = self.has_ended
        if self._kind is RequestOutputKind.FINAL_ONLY and not finished:
            return None
        due = [one for one in changed if one.is_due(self._stream_interval)]
        if not due:
            return None
        if self._kind is RequestOutputKind.DELTA:
            outputs = [one.delta() for one in due]
        else:
            outputs = [one.cumulative() for one in self._completions]
        if self._num_best is not None:
            self._warn_of_failures(outputs)
            outputs = _best(outputs, self._num_best)
        return RequestOutput(
            request_id=self._engine.request_id,
            prompt=self._request.prompt_text,
            prompt_token_ids=self._prompt_token_ids,
            prompt_logprobs=self._take_prompt_logprobs(),
            outputs=outputs,
            finished=finished,
            metrics=self._metrics if finished else None,
            num_cached_tokens=self._num_cached_tokens,
        )

    def _warn_of_failures(self, outputs: list[CompletionOutput]) -> None:
        errors = [one.error for one in outputs if one.error is not None]
        if 0 < len(errors) < len(outputs):  # else the answer itself has an error
            logger.warning(
                "request %s: %d of %d samples failed, and the best of the others are chosen: %s",
                self._engine.request_id,
                len(errors),
                len(outputs),
                errors[0],
            )

    def end(self) -> RequestEnd:
        """The record of the ended request for observers."""
        return RequestEnd(
            request=self._request,
            completions=tuple(one.end() for one in self._completions),
            timing=self._metrics,
            num_cached_tokens=self._num_cached_tokens or 0,
            end_time=time.time(),
        )

    def _drop_beams_that_never_were(self) -> None:
        """Drop the beams without an end: all end in one step, and few allowed tokens give fewer
        than asked for."""
        self._completions = [one for one in self._completions if one.has_ended]
        self._num_open = 0

    @cached_property
    def _prompt_token_ids(self) -> list[int]:
        """A copy for the caller, who may change it: the core may share the request's list."""
        return list(self._engine.prompt_token_ids)

    def _take_prompt_logprobs(self) -> PromptLogprobs | None:
        """The prompt's log-probabilities; a stream of deltas carries them once."""
        logprobs = self._prompt_logprobs
        if self._kind is RequestOutputKind.DELTA:
            self._prompt_logprobs = None
        return logprobs

    @cached_property
    def _metrics(self) -> RequestStateStats:
        """Timing of the ended request over all completions: from the first that was scheduled to
        the last that ended."""
        arrival = self._engine.arrival_time
        timings = [one.timing for one in self._completions if one.timing is not None]
        first_token = min((t.first_token_time for t in timings if t.first_token_time), default=0.0)
        return RequestStateStats(
            num_generation_tokens=sum(len(one.token_ids) for one in self._completions),
            num_preemptions=sum(timing.num_preemptions for timing in timings),
            arrival_time=arrival,
            queued_ts=arrival,
            scheduled_ts=min((t.scheduled_time for t in timings if t.scheduled_time), default=0.0),
            first_token_ts=first_token,
            last_token_ts=max((timing.finished_time for timing in timings), default=0.0),
            first_token_latency=first_token - arrival if first_token else 0.0,
        )


def _without_targets(request: ProcessedRequest) -> PromptLogprobs | None:
    """Log-probabilities of a prompt of one token, if asked for: there is nothing to compute, so
    the core sends none."""
    asked = request.params.prompt_logprobs is not None
    return [None] if asked and len(request.engine.prompt_token_ids) == 1 else None


class _Completion:
    """One completion so far, and how much of it the caller has seen."""

    def __init__(
        self, index: int, request: ProcessedRequest, vocabulary: Vocabulary | None
    ) -> None:
        self._index = index
        self._stop = request.stop
        self._vocabulary = vocabulary
        self._shows_special = not request.params.skip_special_tokens
        self._wants_logprobs = request.params.logprobs is not None
        self._stream = _text_stream(request, vocabulary)
        self._pieces: list[str] = []  # of the text of the next output
        self.token_ids: list[int] = []
        self._logprobs: SampleLogprobs = []
        self._cumulative_logprob: float | None = None
        self._finish_reason: FinishReason | None = None
        self._stop_reason: int | str | None = None
        self._score: float | None = None
        self._error: str | None = None
        self._is_refusal = False
        self.timing: CompletionTiming | None = None  # when it has ended
        self._begun: CompletionTiming | None = None
        self._arrival_time = request.engine.arrival_time
        self._first_seen = 0.0
        self._num_seen_tokens = 0

    @property
    def has_ended(self) -> bool:
        return self._finish_reason is not None

    def take(self, delta: CompletionDelta) -> None:
        token_ids = delta.new_token_ids
        at_token = (
            delta.finish_reason is FinishReason.STOP
            and bool(token_ids)
            and token_ids[-1] in self._stop.token_ids
        )
        hidden = at_token and not self._stop.include_in_output
        new = self._stream.feed(token_ids[:-1] if hidden else token_ids)
        num_tokens = len(token_ids) if new.stop is None else new.num_tokens
        self.token_ids += token_ids[:num_tokens]
        self._pieces.append(new.text)
        self._take_logprobs(delta, num_tokens)
        self._score = delta.score  # a beam's, kept if cut here: all are ranked alike
        self._first_seen = self._first_seen or time.time()
        if delta.finish_reason is not None:
            self.timing = delta.timing
        else:
            self._begun = delta.timing or self._begun
        if new.stop is not None:
            self._end_at_string(new.stop)
        elif delta.finish_reason is not None:
            self._end_by_core(delta, token_ids[-1] if at_token else None)

    def abort(self) -> None:
        self._pieces.append(self._stream.finish().text)
        self._end(FinishReason.ABORT, None)

    def lose(self) -> None:
        """End with an error if no end has come: none will."""
        if not self.has_ended:
            self._end(FinishReason.ERROR, None)

    def end(self) -> CompletionEnd:
        assert self._finish_reason is not None
        return CompletionEnd(num_tokens=len(self.token_ids), reason=self._finish_reason)

    def is_due(self, stream_interval: int) -> bool:
        """Whether the caller should see what is new: the first token, the end, or
        ``stream_interval`` tokens."""
        num_new = len(self.token_ids) - self._num_seen_tokens
        return self.has_ended or self._num_seen_tokens == 0 or num_new >= stream_interval

    def cumulative(self) -> CompletionOutput:
        self._num_seen_tokens = 0
        output = self.delta()
        self._pieces.append(output.text)  # the next output has it too
        return output

    def delta(self) -> CompletionOutput:
        """What the caller has not seen yet; it counts as seen from now on."""
        first, self._num_seen_tokens = self._num_seen_tokens, len(self.token_ids)
        text = "".join(self._pieces)
        self._pieces.clear()
        return CompletionOutput(
            index=self._index,
            text=text,
            token_ids=self.token_ids[first:],
            cumulative_logprob=self._cumulative_logprob,
            logprobs=self._logprobs[first:] if self._wants_logprobs else None,
            finish_reason=None if self._finish_reason is None else self._finish_reason.value,
            stop_reason=self._stop_reason,
            score=self._score,
            error=self._error,
            is_refusal=self._is_refusal,
        )

    def _take_logprobs(self, delta: CompletionDelta, num_tokens: int) -> None:
        """Add up log-probabilities to the stop string, beyond which the core's sum goes. Only the
        core knows a beam's sum, so a beam that is cut here has none."""
        if delta.logprobs is None:
            if delta.cumulative_logprob is not None and num_tokens == len(delta.new_token_ids):
                self._cumulative_logprob = delta.cumulative_logprob
            return
        self._cumulative_logprob = self._cumulative_logprob or 0.0
        if not (used := delta.logprobs[:num_tokens]):
            return
        joined = TokenLogprobs.join(used)
        self._cumulative_logprob += sum(joined.logprobs[:, 0].tolist())
        if self._wants_logprobs:
            self._logprobs += to_dicts(joined, self._vocabulary)

    def _end_by_core(self, delta: CompletionDelta, stop_token_id: int | None) -> None:
        """End as the core says, which knows only token ids: a stop token may stand for a stop
        string."""
        assert delta.finish_reason is not None
        self._error, self._is_refusal = delta.error, delta.is_refusal
        rest = self._stream.finish()
        self._pieces.append(rest.text)
        if rest.stop is not None:
            self._end_at_string(rest.stop)
            return
        if stop_token_id is None:
            self._end(delta.finish_reason, delta.stop_reason)
            return
        stop_string = self._stop.token_strings.get(stop_token_id)
        if stop_string is not None and self._stop.include_in_output and not self._shows_special:
            self._pieces.append(stop_string)
        reason: int | str | None = stop_token_id if stop_string is None else stop_string
        is_eos = stop_token_id in self._stop.eos_token_ids
        self._end(FinishReason.STOP, None if is_eos else reason)

    def _end_at_string(self, stop: str) -> None:
        """End at a text; the end of a turn in a chat format is no reason, and never shown."""
        is_end = stop in self._stop.end_strings
        if is_end and self._stop.include_in_output:
            self._pieces[-1] = self._pieces[-1].removesuffix(stop)
        self._end(FinishReason.STOP, None if is_end else stop)

    def _end(self, finish_reason: FinishReason, stop_reason: int | str | None) -> None:
        self._finish_reason, self._stop_reason = finish_reason, stop_reason
        if self.timing is None:  # ended on this side; the core would measure better
            begun = self._begun or CompletionTiming(
                arrival_time=self._arrival_time, first_token_time=self._first_seen
            )
            self.timing = replace(begun, finished_time=time.time())


def _text_stream(request: ProcessedRequest, vocabulary: Vocabulary | None) -> CompletionText:
    params, stop = request.params, request.stop
    if vocabulary is None or not params.detokenize:
        return NoText()
    detokenizer = make_detokenizer(
        vocabulary,
        prompt_token_ids=request.engine.prompt_token_ids,
        skip_special_tokens=params.skip_special_tokens,
        spaces_between_special_tokens=params.spaces_between_special_tokens,
    )
    if not stop.strings:
        return PlainText(detokenizer)
    checker = StopChecker(stop.strings, stop.include_in_output)
    return StoppableText(detokenizer, checker, stop.min_tokens)


def _best(outputs: list[CompletionOutput], count: int) -> list[CompletionOutput]:
    """The ``count`` best, best first, renumbered: beams by score, samples by likelihood. Failed
    ones come last."""
    failed = FinishReason.ERROR.value

    def rank(output: CompletionOutput) -> float:
        likely = output.cumulative_logprob if output.score is None else output.score
        return -math.inf if likely is None or output.finish_reason == failed else likely

    best = sorted(outputs, key=rank, reverse=True)[:count]
    for index, output in enumerate(best):
        output.index = index
    return best
