"""Who watches requests: told once when one starts and once when it has ended, however it ends.

What metrics, logs and traces are made of, the same for every front end. Knows none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from quire.engine.input_processor import ProcessedRequest
from quire.outputs import RequestStateStats
from quire.request import FinishReason


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
    """Called under the lock of the outputs: must be quick, and must not raise."""

    def request_started(self, request: ProcessedRequest) -> None:
        """A request was taken; called where its user called, so that context variables are
        theirs."""
        ...

    def request_ended(self, end: RequestEnd) -> None: ...


class NoObserver:
    """Nobody watches."""

    def request_started(self, request: ProcessedRequest) -> None:
        pass

    def request_ended(self, end: RequestEnd) -> None:
        pass


class Observers:
    """Several as one."""

    def __init__(self, observers: Sequence[RequestObserver]) -> None:
        self._observers = tuple(observers)

    def request_started(self, request: ProcessedRequest) -> None:
        for observer in self._observers:
            observer.request_started(request)

    def request_ended(self, end: RequestEnd) -> None:
        for observer in self._observers:
            observer.request_ended(end)
