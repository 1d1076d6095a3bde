"""Grammar gate: holds requests back until their grammar is compiled; others overtake them.

Knows nothing about rows: requests that are let through belong to the scheduler.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from quire.request import EngineRequest, FinishReason
from quire.step_output import CompletionDelta, ends_without_tokens
from quire.structured import FREE, Constraint, Grammar, TokenBytes
from quire.structured_outputs.workshop import Job, Workshop

WAIT_S = 0.01  # longest wait for a grammar: commands must not wait longer


@dataclass(slots=True)
class Opened:
    """Requests that no longer wait: with their constraint, or with the deltas of their failure."""

    ready: list[tuple[EngineRequest, Constraint]] = field(default_factory=list)
    failed: list[CompletionDelta] = field(default_factory=list)


class GrammarGate:
    """The waiting requests, in order of arrival."""

    def __init__(self, workshop: Workshop, tokens: TokenBytes) -> None:
        self._workshop = workshop
        self._tokens = tokens
        self._waiting: dict[str, tuple[EngineRequest, Job]] = {}
        self._num_completions = 0  # of all waiting requests, for `__len__`, which every step calls

    def __len__(self) -> int:
        """The number of waiting completions."""
        return self._num_completions

    def enter(self, request: EngineRequest) -> Constraint | None:
        """The request's constraint, or None if it must wait for its grammar; ``ValueError`` if its
        id is in use or its grammar has failed."""
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
        """Take out the requests whose grammar is compiled or has failed."""
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
        """Wait up to `WAIT_S` for a grammar, when there is nothing else to do."""
        self._workshop.wait(WAIT_S)

    def forget(self, request_ids: Iterable[str]) -> list[EngineRequest]:
        """Drop these requests; returns those that were waiting."""
        found = [self._take(one) for one in request_ids if one in self._waiting]
        for _, job in found:
            self._workshop.forget(job)
        return [request for request, _ in found]

    def warm_up(self) -> None:
        """Load what the first request with a grammar would wait for."""
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
