"""EngineCore: schedule, execute, update, with several steps in flight.

Knows requests as token ids; text is the front end's. Everything here happens in one thread.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from quire.engine.beam_requests import BeamRequests
from quire.engine.grammar_gate import GrammarGate
from quire.engine.step_clock import StepClock
from quire.errors import EngineDeadError
from quire.executor.protocol import Executor, PendingResult
from quire.request import EngineRequest, FinishReason
from quire.scheduler.scheduler import Outcome, Scheduler
from quire.step import StepPlan
from quire.step_output import (
    STEP_TOKENS_BOUNDS,
    CompletionDelta,
    EngineFacts,
    EngineStats,
    ends_without_tokens,
)
from quire.structured import Constraint

logger = logging.getLogger(__name__)


class EngineCore:
    """Keeps ``steps_in_flight`` steps on the device and hands out what each produced."""

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        facts: EngineFacts,
        steps_in_flight: int,
        gate: GrammarGate,
    ) -> None:
        self.facts = facts
        self._gate = gate
        self._scheduler = scheduler
        self._executor = executor
        self._steps_in_flight = steps_in_flight
        self._beams = BeamRequests(scheduler)
        self._in_flight: deque[tuple[StepPlan, PendingResult]] = deque()
        self._told: list[CompletionDelta] = []  # of steps that failed at submission
        self._clock = StepClock()
        self._steps_by_tokens = [0] * (len(STEP_TOKENS_BOUNDS) + 1)
        self._num_step_tokens = 0

    def warm_up_more(self) -> bool:
        """Do one more part of the warm-up, before the first request; False when nothing is left."""
        try:
            if self._executor.warm_up():
                return True
            self._gate.warm_up()
            return False
        except EngineDeadError:
            raise
        except Exception:
            logger.exception("a warm-up failed; the first requests that need it may be slow")
            return False

    @property
    def has_unfinished(self) -> bool:
        return self._scheduler.has_unfinished or len(self._gate) > 0 or bool(self._told)

    def add_request(self, request: EngineRequest) -> None:
        """Queue a request; ``ValueError`` if its id is in use or its grammar is known to be wrong.
        While its grammar is being compiled, later requests overtake it."""
        self._scheduler.require_new(request.request_id)
        constraint = self._gate.enter(request)
        if constraint is not None:
            self._admit(request, constraint)

    def abort(self, request_ids: Iterable[str], *, keeps_tokens: bool = False) -> None:
        """Abort requests without further deltas; with ``keeps_tokens`` the next step returns their
        final deltas with the tokens not sent yet. Ids that have ended are ignored."""
        request_ids = list(request_ids)
        without_tokens = self._gate.forget(request_ids) + self._beams.forget(request_ids)
        self._scheduler.abort(request_ids, keeps_tokens=keeps_tokens)
        if keeps_tokens:
            for request in without_tokens:
                self._scheduler.tell(ends_without_tokens(request, FinishReason.ABORT))

    def finish(self, request_id: str, index: int) -> None:
        """End one completion whose end the front end has found. It gets no further delta, unless an
        abort with ``keeps_tokens`` came first."""
        self._scheduler.finish(request_id, index)

    def seconds_to_spare(self) -> float:
        """How long `step` can be delayed without idling the device, so that requests that arrive
        meanwhile join the step that it plans. 0 if requests are waiting for room."""
        if not self._in_flight or len(self._in_flight) >= self._steps_in_flight:
            return 0.0
        (_, oldest), (_, last) = self._in_flight[0], self._in_flight[-1]
        if oldest.is_done or last.is_done or self._scheduler.has_waiting:
            return 0.0
        return self._clock.seconds_to_spare()

    def begin(self) -> None:
        """Submit a step to an idle device without waiting for it; requests that arrive meanwhile
        join later steps."""
        if not self._in_flight:
            self._fill(1)

    def step(self) -> list[CompletionDelta]:
        """Fill the device's queue, then return the deltas of the oldest step; empty if there was
        nothing to do."""
        refused = self._open_gate() if len(self._gate) else []
        return refused + self._step()

    def _admit(self, request: EngineRequest, constraint: Constraint) -> None:
        self._scheduler.add(request, constraint)
        if request.beam is not None:
            self._beams.add(request)

    def _open_gate(self) -> list[CompletionDelta]:
        """Queue the requests whose grammar is ready; returns the final deltas of those whose
        grammar failed."""
        if not self._in_flight and not self._scheduler.has_unfinished:
            self._gate.wait()
        opened = self._gate.open()
        for request, constraint in opened.ready:
            self._admit(request, constraint)
        return opened.failed

    def _fill(self, most: int) -> None:
        """Submit steps until ``most`` are in flight or nothing is left to schedule."""
        # Only errors raised by the ranks are recovered from: a scheduler that raises is broken for
        # good.
        while len(self._in_flight) < most:
            plan = self._scheduler.schedule()
            if plan is None:
                break
            self._count(plan.num_tokens)
            try:
                self._in_flight.append((plan, self._executor.submit(plan)))
                self._clock.submitted(plan)
            except Exception as error:
                self._told += self._recover(plan, error)
                break

    def _step(self) -> list[CompletionDelta]:
        self._fill(self._steps_in_flight)
        if self._told or not self._in_flight:
            told, self._told = self._told, []
            return told + self._news(Outcome(deltas=self._scheduler.take_ends()))
        plan, pending = self._in_flight.popleft()
        is_late = pending.is_done
        try:
            result = pending.result()
        except Exception as error:
            return self._recover(plan, error)
        self._clock.done(is_late=is_late)
        return self._news(self._scheduler.update(plan, result))

    def _recover(self, plan: StepPlan, error: Exception) -> list[CompletionDelta]:
        """Survive an error of the model or a kernel: its requests are retried one by one."""
        if isinstance(error, EngineDeadError):
            raise error
        logger.error("a step failed; its requests are retried one by one", exc_info=error)
        self._in_flight.clear()
        self._clock.forget()
        return self._news(self._scheduler.fail(plan, f"{type(error).__name__}: {error}"))

    def _news(self, outcome: Outcome) -> list[CompletionDelta]:
        """The deltas for the front end; a beam search has some only when it has ended."""
        return self._beams.end_failed(outcome.deltas) + self._beams.advance(outcome.held)

    def stats(self) -> EngineStats:
        stats = self._scheduler.stats()
        return replace(
            stats,
            num_waiting=stats.num_waiting + len(self._gate),
            num_step_tokens=self._num_step_tokens,
            steps_by_tokens=tuple(self._steps_by_tokens),
        )

    def _count(self, num_tokens: int) -> None:
        self._steps_by_tokens[bisect_left(STEP_TOKENS_BOUNDS, num_tokens)] += 1
        self._num_step_tokens += num_tokens

    def block_map(self) -> bytes:
        """One byte per KV block: 0 free, 1 in use, 2 shared, 3 cached."""
        return self._scheduler.kv.pool.states()

    def reset_prefix_cache(self) -> bool:
        """Drop all cached prefixes; False if requests still use blocks."""
        return self._scheduler.reset_prefix_cache()

    def check_integrity(self) -> None:
        """Assert that no block, row or beam is lost; for tests and soaks."""
        self._scheduler.check_integrity()

    def close(self) -> None:
        self._in_flight.clear()
        self._executor.close()
