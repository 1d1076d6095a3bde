"""Runs requests on an `LLMEngine` for callers that want their own outputs, several at a time.

Whoever waits steps the engine, and hands the others' outputs to them: so a stream may be read while
another call runs, also from another thread. Requests are queued a few steps' worth of tokens at a
time, so that the first are computed while the others are still being made; more of them where that
takes no time, since a prefix that they share may leave little of their tokens. Knows nothing about
prompts.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator

from quire.engine.input_processor import ProcessedRequest
from quire.engine.llm_engine import LLMEngine
from quire.errors import RequestError
from quire.outputs import RequestOutput

_Inbox = deque[RequestOutput]

_NO_TIME_S = 0.003
_HIDDEN_TIMES = 4  # as long, while steps are in flight


class OfflineRunner:
    """The owner of an engine's loop. Outputs of requests added by others are dropped."""

    def __init__(self, engine: LLMEngine, no_time_s: float = _NO_TIME_S) -> None:
        self._engine = engine
        self._no_time_s = no_time_s
        limits = engine.config.scheduler
        # More prompt tokens than the steps in flight compute, so that no step lacks any.
        self.tokens_at_once = (limits.steps_in_flight + 1) * limits.max_num_batched_tokens
        self._inboxes: dict[str, _Inbox] = {}
        self._lock = threading.Lock()  # over the engine
        self._stepping: int | None = None  # the thread that is inside a step
        self._to_abort: deque[list[str]] = deque()

    def run(self, requests: Iterable[ProcessedRequest]) -> Generator[RequestOutput, None, None]:
        """The outputs as they come; leaving the iterator early aborts what still runs, and so does
        an error of ``requests``, which is raised."""
        inbox: _Inbox = deque()
        unfinished: set[str] = set()
        coming = iter(requests)
        try:
            are_more = True
            while are_more or unfinished:
                if are_more:
                    are_more = self._queue_some(coming, inbox, unfinished)
                if unfinished and not inbox:
                    self._step(inbox)
                while inbox:
                    output = inbox.popleft()
                    if output.finished:
                        unfinished.discard(output.request_id)
                        del self._inboxes[output.request_id]
                    yield output
        finally:
            self._abort(unfinished)

    def _queue_some(
        self, coming: Iterator[ProcessedRequest], inbox: _Inbox, unfinished: set[str]
    ) -> bool:
        """Queue requests of as many tokens as the next steps can take, or of more that are made in
        no time; whether more may come."""
        requests, num_tokens, are_more = [], 0, False
        no_time_s = self._no_time_s * (_HIDDEN_TIMES if unfinished else 1)
        until = time.perf_counter() + no_time_s
        for request in coming:
            requests.append(request)
            num_tokens += len(request.engine.prompt_token_ids)
            if num_tokens >= self.tokens_at_once and time.perf_counter() >= until:
                are_more = True
                break
        if self._stepping == threading.get_ident():
            raise RequestError(
                "the engine is in the middle of a step, in this very thread: what it calls there, "
                "such as a logits processor, cannot use it; use another engine"
            )
        with self._lock:
            self._engine.submit(requests)
            request_ids = [request.engine.request_id for request in requests]
            unfinished.update(request_ids)
            self._inboxes.update(dict.fromkeys(request_ids, inbox))
        return are_more

    def _step(self, inbox: _Inbox) -> None:
        with self._lock:
            self._abort_queued()
            if inbox:  # another thread stepped for us
                return
            if not self._engine.has_unfinished_requests():
                raise RequestError(
                    "the outputs went to somebody else: a request was aborted, or the engine was "
                    "stepped, beside the call that waits for it"
                )
            self._stepping = threading.get_ident()
            try:
                outputs = self._engine.step()
            finally:
                self._stepping = None
            for output in outputs:
                if output.request_id in self._inboxes:
                    self._inboxes[output.request_id].append(output)

    def _abort(self, request_ids: Iterable[str]) -> None:
        """At once or before the next step: the garbage collector may close an iterator anywhere,
        even inside a step of the same thread."""
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
                self._inboxes.pop(request_id, None)
