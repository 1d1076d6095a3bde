"""Grammar gate: requests that wait for their grammar, which others pass.

Knows nothing about rows: who comes through is the scheduler's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from quire.request import EngineRequest, FinishReason
from quire.step_output import CompletionDelta, ends_without_tokens
from quire.structured import FREE, Constraint, Grammar, TokenBytes
from quire.structured_outputs.workshop import Job, Workshop

WAIT_S = 0.01  # at most, when nothing else is to be done; commands must not wait longer


@dataclass(slots=True)
class Opened:
    """Who need not wait any more."""

    ready: list[tuple[EngineRequest, Constraint]] = field(default_factory=list)
    failed: list[CompletionDelta] = field(default_factory=list)


class GrammarGate:
    """In the order in which the requests came."""

    def __init__(self, workshop: Workshop, tokens: TokenBytes) -> None:
        self._workshop = workshop
        self._tokens = tokens
        self._waiting: dict[str, tuple[EngineRequest, Job]] = {}
        self._num_completions = 0  # of all that wait: every step asks

    def __len__(self) -> int:
        """How many completions wait."""
        return self._num_completions

    def enter(self, request: EngineRequest) -> Constraint | None:
        """What the request obeys; None: it must wait. ``ValueError``: it cannot be served."""
        if request.request_id in self._waiting:
            raise ValueError(f"request id {request.request_id!r} is in use; choose another one")
        if request.grammar is None:
            return self._constraint(request, None) if request.thinking else FREE
        job = self._workshop.order(request.grammar)
        if not job.is_done:
            self._waiting[request.request_id] = request, job
            self._num_completions += _num_queued(request)
            return None
        if job.error is not None:
            raise ValueError(job.error)
        return self._constraint(request, job.grammar)

    def open(self) -> Opened:
        """Let those through whose grammars are done."""
        opened = Opened()
        if not self._waiting or not self._workshop.poll():
            return opened
        for request, job in [one for one in self._waiting.values() if one[1].is_done]:
            self._take(request.request_id)
            if job.error is not None:
                opened.failed += ends_without_tokens(request, FinishReason.ERROR, job.error)
            else:
                opened.ready.append((request, self._constraint(request, job.grammar)))
        return opened

    def wait(self) -> None:
        """A moment, for nothing else is to be done."""
        self._workshop.wait(WAIT_S)

    def forget(self, request_ids: Iterable[str]) -> list[EngineRequest]:
        """They do not wait any more; those that did."""
        found = [self._take(one) for one in request_ids if one in self._waiting]
        for _, job in found:
            self._workshop.forget(job)
        return [request for request, _ in found]

    def warm_up(self) -> None:
        """Make ready what the first who comes would wait for."""
        self._workshop.warm_up()

    def _take(self, request_id: str) -> tuple[EngineRequest, Job]:
        request, job = self._waiting.pop(request_id)
        self._num_completions -= _num_queued(request)
        return request, job

    def _constraint(self, request: EngineRequest, grammar: Grammar | None) -> Constraint:
        return Constraint(grammar=grammar, thinking=request.thinking, tokens=self._tokens)


def _num_queued(request: EngineRequest) -> int:
    """Completions that the scheduler will queue; a beam search begins with one."""
    return request.n if request.beam is None else 1
