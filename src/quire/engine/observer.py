"""Observers of requests: told once when one starts and once when it has ended, however it ends.

Metrics, logs and traces are built on this, in every front end. Knows none of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from quire.engine.input_processor import ProcessedRequest
from quire.outputs import RequestStateStats
from quire.request import FinishReason

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionEnd:
    """One completion of a request that has ended."""

    num_tokens: int
    reason: FinishReason


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestEnd:
    """A request that has ended, with all its completions."""

    request: ProcessedRequest
    completions: tuple[CompletionEnd, ...]
    timing: RequestStateStats
    num_cached_tokens: int  # prompt tokens taken from the prefix cache
    end_time: float  # time.time() seconds

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.request.engine.prompt_token_ids)

    @property
    def num_generation_tokens(self) -> int:
        return sum(one.num_tokens for one in self.completions)


class RequestObserver(Protocol):
    """Called under the lock of the outputs, so it must be quick and must not raise; `Observers`
    catches errors."""

    def request_started(self, request: ProcessedRequest) -> None:
        """A request was accepted; called in its caller's context, so that context variables are the
        caller's."""
        ...

    def request_ended(self, end: RequestEnd) -> None: ...


class NoObserver:
    """Ignores all requests."""

    def request_started(self, request: ProcessedRequest) -> None:
        pass

    def request_ended(self, end: RequestEnd) -> None:
        pass


class Observers:
    """Several observers as one. The first error of each is logged; no error stops the others or the
    request."""

    def __init__(self, observers: Sequence[RequestObserver]) -> None:
        self._observers = tuple(observers)
        self._failed: set[int] = set()  # of their indices

    def request_started(self, request: ProcessedRequest) -> None:
        self._tell(lambda observer: observer.request_started(request))

    def request_ended(self, end: RequestEnd) -> None:
        self._tell(lambda observer: observer.request_ended(end))

    def _tell(self, tell: Callable[[RequestObserver], None]) -> None:
        for index, observer in enumerate(self._observers):
            try:
                tell(observer)
            except Exception:
                self._log_first_error(index)

    def _log_first_error(self, index: int) -> None:
        if index not in self._failed:
            self._failed.add(index)
            logger.exception(
                "%s failed to record a request, which goes on; its further errors are not logged",
                type(self._observers[index]).__name__,
            )
