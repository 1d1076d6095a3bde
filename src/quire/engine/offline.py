"""Runs requests on an `LLMEngine` for callers that want their own outputs, several at a time.

One of the waiting calls steps the engine and hands the others their outputs, so a stream may be
read while another call runs, also from another thread. While the engine waits for a core in another
process, all threads may use it. Requests are queued one step's worth of tokens at first, then a few
steps' worth at a time, so that the first are computed while the others are still being made; more
are queued if that takes no time, since with a shared prefix few of their tokens may need computing.
Knows nothing about prompts.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator

from quire.engine.input_processor import ProcessedRequest
from quire.engine.llm_engine import LLMEngine
from quire.errors import RequestError
from quire.outputs import RequestOutput

_NO_TIME_S = 0.003
_HIDDEN_TIMES = 4  # times as long while steps are in flight
_LONGEST_WAIT_S = 0.1  # before a waiting thread checks again whether it must step or abort


class OfflineRunner:
    """The owner of an engine's loop. Outputs of requests added by others are dropped."""

    def __init__(self, engine: LLMEngine, no_time_s: float = _NO_TIME_S) -> None:
        self._engine = engine
        self._no_time_s = no_time_s
        limits = engine.config.scheduler
        self._first_tokens = limits.max_num_batched_tokens
        # More prompt tokens than the steps in flight compute, so that no step lacks any.
        self.tokens_at_once = (limits.steps_in_flight + 1) * limits.max_num_batched_tokens
        self._lock = threading.Lock()  # over the engine and all below
        self._calls: dict[str, _Call] = {}  # by the ids of their requests
        self._waiting: list[_Call] = []  # for the receiver
        self._receiver: int | None = None  # the thread that steps the engine for all
        self._num_steps = 0
        self._to_abort: deque[list[str]] = deque()

    def run(self, requests: Iterable[ProcessedRequest]) -> Generator[RequestOutput, None, None]:
        """The outputs as they come; leaving the iterator early aborts what still runs, and so does
        an error of ``requests``, which is raised."""
        call = _Call(self._lock)
        inbox, unfinished = call.inbox, call.unfinished
        coming = iter(requests)
        try:
            self._queue_some(coming, call, self._first_tokens)
            if call.are_more:
                self._begin()
                self._queue_some(coming, call, self.tokens_at_once - self._first_tokens)
            while call.are_more or unfinished:
                if unfinished and not inbox:
                    self._step(call)
                while inbox:
                    output = inbox.popleft()
                    if output.finished:
                        unfinished.discard(output.request_id)
                        del self._calls[output.request_id]
                    yield output
                if call.are_more:
                    self._queue_some(coming, call, self.tokens_at_once)
        finally:
            self._abort(unfinished)

    def _queue_some(self, coming: Iterator[ProcessedRequest], call: _Call, least: int) -> None:
        """Queue requests of at least ``least`` tokens in all, and more while making them takes next
        to no time."""
        requests, num_tokens, are_more = [], 0, False
        no_time_s = self._no_time_s * (_HIDDEN_TIMES if call.unfinished else 1)
        until = time.perf_counter() + no_time_s
        for request in coming:
            requests.append(request)
            num_tokens += len(request.engine.prompt_token_ids)
            if num_tokens >= least and time.perf_counter() >= until:
                are_more = True
                break
        self._refuse_inside_a_step()
        request_ids = [request.engine.request_id for request in requests]
        with self._lock:
            call.unfinished.update(request_ids)  # first: `submit` ends with a delayed Ctrl-C
            try:
                self._engine.submit(requests)
            except Exception:  # none was queued, and other calls may have these ids
                call.unfinished.difference_update(request_ids)
                raise
            self._calls.update(dict.fromkeys(request_ids, call))
        call.are_more = are_more

    def _begin(self) -> None:
        """Let the engine start what is queued, if no thread is stepping it."""
        with self._lock:
            if self._receiver is not None:
                return
            self._receiver = threading.get_ident()  # so that calls from inside the step are refused
            try:
                self._engine.begin()
            finally:
                self._receiver = None

    def _step(self, call: _Call) -> None:
        """Step the engine until the call has outputs, or once if it has more requests to queue; the
        first thread to wait steps for all."""
        self._refuse_inside_a_step()
        me = threading.get_ident()
        call.wants_step = self._num_steps + 1 if call.are_more else math.inf
        try:
            with self._lock:
                self._wait_for_receiver(call)
                if call.is_served(self._num_steps):
                    return
                self._receiver = me
            while not call.is_served(self._num_steps):
                self._receive()
        finally:
            if self._receiver == me:
                self._receiver = None  # first, as Ctrl-C may interrupt what follows
                with self._lock:
                    for other in self._waiting[:1]:
                        other.news.notify()

    def _wait_for_receiver(self, call: _Call) -> None:
        """Wait until another thread's steps have served the call, or no thread steps; the lock is
        held by the caller and released meanwhile."""
        try:
            self._waiting.append(call)
            while self._receiver is not None and not call.is_served(self._num_steps):
                call.news.wait(_LONGEST_WAIT_S)
        finally:
            self._waiting.remove(call)

    def _receive(self) -> None:
        """Run one step, or wait up to `_LONGEST_WAIT_S` if none is ready."""
        with self._lock:
            self._abort_queued()
            if not self._engine.has_unfinished_requests():
                raise RequestError(
                    "the outputs of a waiting call were lost: its request was aborted, or the "
                    "engine stepped, by other code; leave both to the call until it returns"
                )
        if not self._engine.wait(_LONGEST_WAIT_S):
            return
        with self._lock:
            for output in self._engine.step():
                call = self._calls.get(output.request_id)
                if call is not None:
                    call.inbox.append(output)
            self._num_steps += 1
            for call in self._waiting:
                if call.is_served(self._num_steps):
                    call.news.notify()

    def _refuse_inside_a_step(self) -> None:
        if self._receiver == threading.get_ident():
            raise RequestError(
                "the engine is in the middle of a step of this thread: code that the step calls, "
                "such as a logits processor, cannot use the engine; use another one"
            )

    def _abort(self, request_ids: Iterable[str]) -> None:
        """Abort requests at once, or before the next step if the lock is held: the garbage
        collector may close an iterator anywhere, even inside a step of the same thread."""
        self._to_abort.append(list(request_ids))
        if self._lock.acquire(blocking=False):
            try:
                self._abort_queued()
            finally:
                self._lock.release()

    def _abort_queued(self) -> None:
        while self._to_abort:
            request_ids = self._to_abort.popleft()
            self._engine.abort_request(request_ids)
            for request_id in request_ids:
                self._calls.pop(request_id, None)


class _Call:
    """One call of `run`: its outputs, and how it is woken."""

    def __init__(self, lock: threading.Lock) -> None:
        self.inbox: deque[RequestOutput] = deque()
        self.unfinished: set[str] = set()  # ids of its requests
        self.are_more = True  # requests to come
        self.wants_step = math.inf  # the number of the step after which it goes on in any case
        self.news = threading.Condition(lock)

    def is_served(self, num_steps: int) -> bool:
        return bool(self.inbox) or num_steps >= self.wants_step
