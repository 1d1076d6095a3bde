"""Scheduler: which row computes how many tokens in the next step.

There are no phases. Every row has tokens whose keys and values are computed and tokens that are
known; a step lets each row catch up, as far as one budget of tokens and the free blocks go.
Chunked prefill, prefix hits, preemption with recompute and decode are all this one rule.
Knows nothing about text or tensors.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from quire.config import SchedulerConfig
from quire.kv_cache.manager import KVCacheManager
from quire.request import EngineRequest, FinishReason
from quire.scheduler.admission import Admission, Span
from quire.scheduler.completion import Completion
from quire.scheduler.draft import Changes, Draft, step_budget
from quire.scheduler.held_beams import held_beams, who_makes_way
from quire.scheduler.results import ResultReader
from quire.scheduler.retrial import Retrial
from quire.scheduler.row_blocks import RowBlocks
from quire.scheduler.row_table import Index, RowTable
from quire.scheduler.steady import LookAhead
from quire.scheduler.waiting_queue import WaitingQueue
from quire.step import RowToken, StepPlan, StepResult, TokenLogprobs
from quire.step_output import CompletionDelta, EngineStats
from quire.structured import FREE, Constraint


@dataclass(slots=True)
class Outcome:
    """What a finished step brings: news for the front end, and beams that need a chosen token."""

    deltas: list[CompletionDelta] = field(default_factory=list)
    held: list[tuple[Completion, TokenLogprobs]] = field(default_factory=list)


class Scheduler:
    """Plans steps ahead of their results; ``steps_in_flight`` is only a number to it.

    The device executes steps in the order of their plans. So a block may be given to another row
    as soon as its owner left: what earlier steps still write there comes before what later ones do.
    """

    def __init__(self, config: SchedulerConfig, kv: KVCacheManager, max_model_len: int) -> None:
        self.kv = kv
        self.table = RowTable(config.max_num_seqs, max_model_len)
        self._config = config
        self._blocks = RowBlocks(kv, self.table)
        self._results = ResultReader(self.table)
        self._requests: dict[str, dict[int, Completion]] = {}  # by index
        self._running: list[Completion] = []  # by queue key; the last is preempted first
        self._rows: Index | None = None  # rows of _running; None: not made yet
        self._look_ahead = LookAhead(self.table)
        self._waiting = WaitingQueue()
        self._admission = Admission(config, kv, self._blocks, self._waiting)
        self._retrial = Retrial()
        self._changes = Changes()
        self._ends: list[CompletionDelta] = []  # that no step's result reports
        self._num_in_flight = 0
        self._num_arrived = 0
        self._step_id = 0
        self._num_preemptions = 0

    # -- requests ------------------------------------------------------------------------------

    @property
    def has_unfinished(self) -> bool:
        return bool(self._requests) or bool(self._ends)

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting) or bool(self._retrial)

    def add(self, request: EngineRequest, constraint: Constraint = FREE) -> None:
        """Queue all completions of a request. Only the first computes the prompt; the others
        continue from its blocks."""
        self.require_new(request.request_id)
        first = Completion.first_of(request, self._num_arrived, self.kv.new_table(), constraint)
        self._num_arrived += 1
        if request.beam is None:
            first.siblings = [
                first.sibling(index, self.kv.new_table()) for index in range(1, request.n)
            ]
        self._requests[request.request_id] = {one.index: one for one in (first, *first.siblings)}
        self._waiting.push(first)

    def require_new(self, request_id: str) -> None:
        """``ValueError`` if the id is in use."""
        if request_id in self._requests:
            raise ValueError(f"request id {request_id!r} is in use; choose another one")

    def abort(self, request_ids: Iterable[str], *, keeps_tokens: bool = False) -> None:
        """End requests, silently or with the tokens not told yet (``keeps_tokens``).

        Unknown ids are requests that have ended by themselves, and are ignored.
        """
        for request_id in request_ids:
            if self._ends and not keeps_tokens:  # a new request may take the id before they go out
                self._ends = [end for end in self._ends if end.request_id != request_id]
            for completion in list(self._requests.get(request_id, {}).values()):
                if keeps_tokens:
                    self._ends.append(self._results.abort_delta(completion))
                self.end(completion, FinishReason.ABORT)

    def finish(self, request_id: str, index: int) -> None:
        """End one completion whose end the front end found (a stop string)."""
        completion = self._requests.get(request_id, {}).get(index)
        if completion is not None:
            self.end(completion, FinishReason.STOP)

    def end(self, completion: Completion, reason: FinishReason) -> None:
        """Take the completion out of the queues and give its row and blocks back."""
        completion.finish_reason = reason
        if completion.row >= 0:
            self._leave(completion)
        elif not completion.table.is_empty:
            self.kv.release(completion.table)
        self._waiting.discard(completion)
        self._retrial.discard(completion)
        self._release_siblings(completion)
        completions = self._requests[completion.request.request_id]
        del completions[completion.index]
        if not completions:
            del self._requests[completion.request.request_id]

    # -- planning ------------------------------------------------------------------------------

    def schedule(self) -> StepPlan | None:
        """Plan the next step; None when no row can compute anything now."""
        if self._retrial and self._num_in_flight:
            return None  # one row at a time: if its step fails, no other row can be to blame
        if self._can_look_ahead():
            self._blocks.name_next()
            self._step_id += 1
            self._num_in_flight += 1
            return self._look_ahead.next_plan(self._step_id)
        plan = self._plan_rows()
        while plan is None and self._make_room():
            plan = self._plan_rows()
        return plan

    def _can_look_ahead(self) -> bool:
        """Whether the next step is the last one, a token further: no row changes, and no waiting
        completion can be admitted."""
        rows = self._rows
        if not self._look_ahead.can_plan(rows, self._num_in_flight) or self._retrial:
            return False
        first = self._waiting.peek() if self.table.num_free else None
        if first is None:
            return True
        assert rows is not None, "somebody runs"
        count = len(rows)
        num_wanted = count + self._waiting.num_tokens_of(self.table.num_free)
        budget = step_budget(self._config, num_wanted, num_decoding=count)
        return self._admission.must_wait(first, budget - count)

    def _plan_rows(self) -> StepPlan | None:
        """Plan row by row: running rows first, then waiting completions. None: there is nothing
        that can be computed."""
        rows = self._running_rows()
        held = held_beams(self.table, self._running, rows) if self._waiting else []
        num_waiting = self._waiting.num_tokens_of(self.table.num_free + len(held))
        draft = Draft.wanted(self.table, rows, self._config, num_waiting)
        preempted = self._reserve(draft)
        self._blocks.name_next()
        num_tokens = int(draft.counts.sum())
        if not num_tokens:
            self._admission.ask_again()
        admitted = [] if preempted else self._admit(draft.budget - num_tokens, held)
        return self._plan(draft, admitted) if admitted or num_tokens else None

    def _reserve(self, draft: Draft) -> bool:
        """Get blocks for what the draft's rows compute. If there are too few, rows at the end of
        the queue are preempted, or must wait for steps in flight.

        Returns whether that was so; then nobody can be admitted.
        """
        table, rows, counts = self.table, draft.rows, draft.counts
        ends = draft.num_computed + counts
        lacks = (ends > table.capacity[rows]) | table.tail_may_be_shared[rows]
        lacking = np.flatnonzero(lacks & (counts > 0))
        if not len(lacking):
            return False
        running = list(self._running)
        num_grown = self._grow_together(draft, lacking)
        for index in lacking[num_grown:].tolist():
            while index < len(self._running) and not self._blocks.grow(
                running[index], int(ends[index])
            ):
                if self._admission.drop_forks():
                    continue
                if self._num_in_flight and self._running[-1] is running[index]:
                    counts[index] = 0  # steps in flight may free blocks
                    draft.cut(index + 1)
                    return True
                self._preempt(self._running[-1])
        draft.cut(len(self._running))
        return len(self._running) < len(running)

    def _grow_together(self, draft: Draft, lacking: np.ndarray) -> int:
        """Give the first of the ``lacking`` rows a block each, up to the first row that needs
        anything but one block for one token. Returns how many rows those were; when all decode, it
        is all of them.

        While blocks abound, rows that would need theirs a few steps later get them now, so that
        most steps change no block table.
        """
        is_full = draft.num_computed[lacking] == self.table.capacity[draft.rows[lacking]]
        needs_one = is_full & (draft.counts[lacking] == 1)
        count = len(lacking) if needs_one.all() else int(needs_one.argmin())
        if not count:
            return 0
        rows = draft.rows[lacking[:count]]
        if self.kv.pool.num_free >= 2 * len(self._running) * self.kv.num_groups:
            rows = np.concatenate([rows, draft.soon_full(self.table, self.kv.block_size // 4)])
        return min(count, self._blocks.grow_by_one(rows))

    def _admit(self, budget: int, held: list[Completion]) -> list[tuple[Completion, Span]]:
        """Give rows to waiting completions, if need be those of ``held`` beams that can make way.

        Returns them with what each computes in this step.
        """
        admitted = []
        while budget > 0 and (completion := self._next_waiting()) is not None:
            giver = None if self.table.num_free else who_makes_way(completion, held)
            if not self.table.num_free and giver is None:
                break
            span = self._admission.admit(completion, budget)
            if span is None:
                break
            if not self._retrial:
                self._waiting.pop()
            if giver is not None:
                held.remove(giver)
                self._park(giver)
            self._join(completion, span.start)
            self._blocks.name_span(completion, span.start, span.end)
            admitted.append((completion, span))
            budget -= span.num_tokens
        return admitted

    def _next_waiting(self) -> Completion | None:
        if self._retrial:
            return None if self._running else self._retrial.next
        return self._waiting.peek()

    def _join(self, completion: Completion, num_computed: int) -> None:
        host_chooses = completion.is_beam or completion.sampling.runs_user_code
        depth = 1 if host_chooses else self._config.steps_in_flight
        self.table.join(
            completion,
            num_computed=num_computed,
            capacity=len(completion.table) * self.kv.block_size,
            max_pending=depth,
        )
        if not completion.scheduled_time:
            completion.scheduled_time = time.time()
            if not completion.num_forked:  # a fork has its sibling's prompt
                completion.num_cached_tokens = num_computed
        completion.num_forked = 0
        bisect.insort(self._running, completion, key=lambda running: running.queue_key)
        self._rows = None
        self._changes.joined.append(completion.joined_row())

    def _plan(self, draft: Draft, admitted: list[tuple[Completion, Span]]) -> StepPlan:
        table = self.table
        if admitted:
            counts = [span.num_tokens for _, span in admitted]
            draft.add(table, [completion.row for completion, _ in admitted], counts)
        draft.drop_idle()
        rows, num_computed = draft.rows, draft.num_computed
        ends = num_computed + draft.counts
        table.num_computed[rows] = ends
        samples = ends == draft.num_tokens
        # A beam's token is known, and counted, when all beams of its search have been compared.
        table.num_tokens[rows] += samples & ~table.is_beam[rows]
        for row in rows[samples & table.has_siblings[rows]].tolist():
            self._fork_siblings(row)
        changes, self._changes = self._changes, Changes()
        copies, blocks = self._blocks.take_changes()
        self._step_id += 1
        self._num_in_flight += 1
        plan = StepPlan(
            step_id=self._step_id,
            left=changes.left,
            copies=copies,
            joined=changes.joined,
            blocks=blocks,
            tokens=changes.tokens,
            rows=rows.astype(np.int32),
            num_computed=num_computed,
            num_scheduled=draft.counts,
            samples=samples,
            epochs=table.epoch[rows],
        )
        self._look_ahead.follow(plan, rows is self._rows, rows)
        return plan

    def _fork_siblings(self, row: int) -> None:
        """Let the request's other completions share the blocks of the prompt, which this step
        completes, and queue them."""
        completion = self.table.completions[row]
        assert completion is not None
        num_shared = completion.num_prompt_tokens - 1
        for sibling in completion.siblings:
            sibling.hashes = list(completion.hashes)
            if num_shared:
                sibling.table = self.kv.fork(completion.table, num_shared)
                sibling.num_forked = num_shared
            sibling.num_cached_tokens = completion.num_cached_tokens
        self.table.tail_may_be_shared[row] = True
        self.table.has_siblings[row] = False
        self._release_siblings(completion)

    def _release_siblings(self, completion: Completion) -> None:
        for sibling in completion.siblings:
            if sibling.finish_reason is None:
                self._waiting.push(sibling)
            elif not sibling.table.is_empty:
                self.kv.release(sibling.table)
        completion.siblings = []

    def _make_room(self) -> bool:
        """Called when nothing can be computed; returns whether to plan again.

        If no result is awaited that may change it, blocks are taken from held beams and from forks
        that wait; without any, the next completion does not fit even alone, and ends with an error.
        """
        if self._num_in_flight or self._next_waiting() is None:
            return False
        if self._running:
            self._preempt(self._running[-1])
            return True
        suspect = self._retrial.next
        completion = suspect or self._waiting.pop()
        if not self._admission.drop_forks():
            needed = self.kv.num_blocks_for(len(completion.token_ids))
            self._fail(
                completion,
                f"the request needs {needed} KV blocks, the cache has "
                f"{self.kv.pool.num_blocks - 1}; shorten the prompt or give the cache more memory",
                is_refusal=True,
            )
        elif suspect is None:
            self._waiting.push(completion)
        return True

    # -- results -------------------------------------------------------------------------------

    def update(self, plan: StepPlan, result: StepResult) -> Outcome:
        """Take in the result of a step; rows that have changed hands since are ignored."""
        self._num_in_flight -= 1
        news = self._results.read(plan, result)
        outcome = Outcome(deltas=[*self.take_ends(), *news.deltas], held=news.held)
        tried = self._retrial.next if news.num_confirmed else None
        for completion, reason in news.ended:
            self.end(completion, reason)
        if tried is not None and tried in self._retrial:  # else it has just ended
            self._retrial.discard(tried)
            if tried.row >= 0:
                self._preempt(tried)
        return outcome

    def fail(self, plan: StepPlan, message: str) -> Outcome:
        """Take in that a step failed, which makes those in flight after it void.

        Whatever they might have written is forgotten, and every row is tried again alone; a row
        that was alone in the step ends with an error instead.
        """
        self._num_in_flight = 0
        running = list(self._running)
        is_alone = len(plan.rows) == 1 and self.table.epoch[plan.rows[0]] == plan.epochs[0]
        culprit = self.table.completions[plan.rows[0]] if is_alone else None
        self._retrial.begin(completion for completion in running if not completion.is_held)
        for completion in running:
            self._preempt(completion)
        while self._admission.drop_forks():
            pass
        self.kv.pool.drop_cache()
        if culprit is not None:
            self._fail(culprit, message, is_refusal=False)
        return Outcome(deltas=self.take_ends())

    def tell(self, ends: list[CompletionDelta]) -> None:
        """Report ``ends`` together with the news of the next step."""
        self._ends += ends

    def take_ends(self) -> list[CompletionDelta]:
        """The ends that no step's result reports, once."""
        ends, self._ends = self._ends, []
        return ends

    def _fail(self, completion: Completion, message: str, *, is_refusal: bool) -> None:
        self.end(completion, FinishReason.ERROR)
        delta = self._results.error_delta(completion, message, is_refusal=is_refusal)
        self._ends.append(delta)

    # -- beams ---------------------------------------------------------------------------------

    def extend(self, completion: Completion, token_id: int) -> None:
        """Continue a held beam with a token that the host chose."""
        completion.is_held = False
        row = completion.row
        if row < 0:  # parked, or preempted while it was held
            completion.token_ids = np.append(completion.token_ids, np.int32(token_id))
            self._waiting.discard(completion)
            if completion not in self._retrial:
                self._waiting.push(completion)
            return
        position = int(self.table.num_confirmed[row])
        self.table.token_ids[row, position] = token_id
        self.table.num_confirmed[row] += 1
        self.table.num_tokens[row] += 1
        self._changes.tokens.append(RowToken(row=row, position=position, token_id=token_id))

    def fork(self, parent: Completion, index: int, token_id: int) -> Completion:
        """A new beam that shares all blocks of a held ``parent`` and has one more token."""
        child = parent.sibling(index, self.kv.new_table())
        child.num_forked = parent.num_forked
        if parent.row >= 0:
            child.token_ids = self.table.confirmed_tokens(parent.row)
            child.num_forked = int(self.table.num_computed[parent.row])
            self.table.tail_may_be_shared[parent.row] = True
        if child.num_forked:
            child.table = self.kv.fork(parent.table, child.num_forked)
        child.token_ids = np.append(child.token_ids, np.int32(token_id))
        self._requests[parent.request.request_id][index] = child
        self._waiting.push(child)
        return child

    # -- giving up rows ------------------------------------------------------------------------

    def _preempt(self, completion: Completion) -> None:
        """Take the completion's row and blocks, so that it must wait. Its tokens in flight are
        sampled again later, and come out the same unless rounding decides."""
        self._num_preemptions += 1
        completion.num_preemptions += 1
        completion.prompt_logprobs = []
        self._leave(completion)
        if completion not in self._retrial and not completion.is_held:
            self._waiting.push(completion)

    def _park(self, beam: Completion) -> None:
        """Take the row of a held beam, which has nothing to compute now; it keeps its blocks."""
        beam.num_forked = int(self.table.num_computed[beam.row])
        self._leave(beam, keeps_blocks=True)
        self._waiting.park(beam)

    def _leave(self, completion: Completion, *, keeps_blocks: bool = False) -> None:
        row = completion.row
        if keeps_blocks:
            self._blocks.leave(completion)
        else:
            self._blocks.release(completion)
        self.table.leave(row)
        self._changes.left.append(row)
        self._changes.tokens = [token for token in self._changes.tokens if token.row != row]
        self._running.remove(completion)
        self._rows = None

    def _running_rows(self) -> Index:
        if self._rows is None:
            self._rows = self._find_running_rows()
        return self._rows

    def _find_running_rows(self) -> Index:
        return np.array([completion.row for completion in self._running], dtype=np.intp)

    # -- the cache and its numbers -------------------------------------------------------------

    def reset_prefix_cache(self) -> bool:
        """Forget all cached prefixes. False, and nothing is done, while a completion has blocks."""
        if self._running or self._waiting.forks:
            return False
        self.kv.pool.drop_cache()
        return True

    def stats(self) -> EngineStats:
        pool = self.kv.pool
        num_running = len(self._running)
        return EngineStats(
            num_running=num_running,
            num_waiting=sum(map(len, self._requests.values())) - num_running,
            num_blocks=pool.num_blocks,
            num_free_blocks=pool.num_free,
            num_cached_blocks=pool.num_idle,
            num_shared_blocks=pool.num_shared,
            block_size=self.kv.block_size,
            kv_waste=self.table.waste(self._find_running_rows()),
            num_preemptions=self._num_preemptions,
            num_steps=self._step_id,
            num_prompt_tokens=self._admission.num_prompt_tokens,
            num_generation_tokens=self._results.num_tokens,
            num_prefix_query_tokens=self._admission.num_query_tokens,
            num_prefix_hit_tokens=self._admission.num_hit_tokens,
            num_evicted_blocks=pool.num_evicted,
        )

    def check_integrity(self) -> None:
        """Assert that every block has its owners and every running completion its row."""
        owners = {*self._running, *self._waiting, *self._waiting.forks}
        self.kv.check_integrity([c.table for c in owners if not c.table.is_empty])
        assert [self.table.completions[c.row] for c in self._running] == self._running
        assert self.table.num_free + len(self._running) == len(self.table.completions)
