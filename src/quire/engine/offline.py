"""Runs requests on an `LLMEngine` for callers that want their own outputs, several at a time.

Whoever waits steps the engine, and hands the others' outputs to them: so a stream may be read while
another call runs, also from another thread. Knows nothing about prompts.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterable

from quire.engine.input_processor import ProcessedRequest
from quire.engine.llm_engine import LLMEngine
from quire.errors import RequestError
from quire.outputs import RequestOutput

_Inbox = deque[RequestOutput]


class OfflineRunner:
    """The owner of an engine's loop. Outputs of requests added by others are dropped."""

    def __init__(self, engine: LLMEngine) -> None:
        self._engine = engine
        self._inboxes: dict[str, _Inbox] = {}
        self._lock = threading.Lock()  # over the engine
        self._to_abort: deque[list[str]] = deque()

    def run(self, requests: list[ProcessedRequest]) -> Generator[RequestOutput, None, None]:
        """The outputs as they come; leaving the iterator early aborts what still runs."""
        inbox: _Inbox = deque()
        unfinished: set[str] = set()
        try:
            with self._lock:
                self._engine.submit(requests)
                unfinished.update(request.engine.request_id for request in requests)
                self._inboxes.update(dict.fromkeys(unfinished, inbox))
            while unfinished:
                if not inbox:
                    self._step(inbox)
                while inbox:
                    output = inbox.popleft()
                    if output.finished:
                        unfinished.discard(output.request_id)
                        del self._inboxes[output.request_id]
                    yield output
        finally:
            self._abort(unfinished)

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
            for output in self._engine.step():
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
