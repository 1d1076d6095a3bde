"""Admission: the blocks with which a waiting completion begins to run, or that it must wait; and
blocks that it waits with, if others need them more. Knows nothing about rows, nor whose turn it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.config import SchedulerConfig
from quire.kv_cache.manager import BlockTable, KVCacheManager
from quire.scheduler.completion import Completion
from quire.scheduler.row_blocks import RowBlocks
from quire.scheduler.waiting_queue import WaitingQueue


@dataclass(frozen=True, slots=True)
class Span:
    """Positions that a completion computes in its first step."""

    start: int
    end: int

    @property
    def num_tokens(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a completion was not admitted, in what may change about it."""

    completion: Completion
    budget: int
    num_free: int
    awaited: tuple[bytes, ...]  # names of blocks with which it would lack fewer


class Admission:
    """Finds and takes blocks; remembers its last refusal, so that a long prompt that waits for
    blocks is not looked up again at every step."""

    def __init__(
        self,
        config: SchedulerConfig,
        kv: KVCacheManager,
        blocks: RowBlocks,
        waiting: WaitingQueue,
    ) -> None:
        self._config = config
        self._kv = kv
        self._blocks = blocks
        self._waiting = waiting
        self._refusal: _Refusal | None = None
        self.num_prompt_tokens = 0  # of prompts that have begun to run, ever; each counts once
        self.num_query_tokens = 0  # of those that were looked up
        self.num_hit_tokens = 0  # of those, found

    def admit(self, completion: Completion, budget: int) -> Span | None:
        """Give the completion blocks for its first tokens, ``budget`` at most; None: not yet.

        There must be room for what a whole step would take, though a short one takes less: begun
        on less, a prompt stalls halfway for lack of blocks and is preempted.
        """
        if self.must_wait(completion, budget):
            return None
        is_fork = not completion.table.is_empty
        table = completion.table if is_fork else self._find_prefix(completion)
        start = completion.num_forked if is_fork else len(table) * self._kv.block_size
        count = len(completion.token_ids) - start
        if self._config.long_prefill_token_threshold:
            count = min(count, self._config.long_prefill_token_threshold)
        end = start + min(count, budget)
        end_of_whole_step = start + min(count, self._config.max_num_batched_tokens)
        may_begin = count <= budget or self._config.enable_chunked_prefill
        if not is_fork:
            if not may_begin or not self._kv.can_adopt_and_grow(table, end_of_whole_step):
                self._refuse(completion, budget, table)
                return None
            self._kv.adopt(table)
            completion.table = table
        growth = self._kv.grow(table, start, end)
        if growth is None:
            return None
        if completion.index == 0 and not completion.scheduled_time:
            self._count_prompt(completion, num_hits=start)
        self._blocks.copies += growth.copies
        self._refusal = None  # idle blocks that who is refused would have taken may be in use now
        return Span(start, end)

    def must_wait(self, completion: Completion, budget: int) -> bool:
        """Whether nothing has come to pass since the completion was refused that could help it."""
        refusal, pool = self._refusal, self._kv.pool
        return (
            refusal is not None
            and refusal.completion is completion
            and refusal.budget == budget
            and pool.num_free <= refusal.num_free
            and not any(pool.find(name) is not None for name in refusal.awaited)
        )

    def ask_again(self) -> None:
        """Whatever was refused, try it once more."""
        self._refusal = None

    def drop_forks(self) -> bool:
        """Make waiting completions, the last one first, compute their prefixes themselves, until
        that frees a block or leaves it to one owner. Whether there was any."""
        pool = self._kv.pool
        before = pool.num_free, pool.num_shared
        any_dropped = False
        while (pool.num_free, pool.num_shared) == before:
            last = self._waiting.take_last_fork()
            if last is None:
                break
            self._kv.release(last.table)
            any_dropped = True
        return any_dropped

    def _refuse(self, completion: Completion, budget: int, found: BlockTable) -> None:
        self._refusal = _Refusal(
            completion=completion,
            budget=budget,
            num_free=self._kv.pool.num_free,
            awaited=self._kv.names_behind(found, completion.hashes),
        )

    def _find_prefix(self, completion: Completion) -> BlockTable:
        if not self._is_looked_up(completion):
            return self._kv.new_table()
        self._blocks.name_all()
        completion.extend_hashes(completion.token_ids, self._kv.block_size)
        # the last token is always computed: its hidden state gives the next one
        return self._kv.find_prefix(completion.hashes, len(completion.token_ids) - 1)

    def _count_prompt(self, completion: Completion, num_hits: int) -> None:
        """Once a request: its other completions, and later beams, continue from the first."""
        self.num_prompt_tokens += completion.num_prompt_tokens
        if self._is_looked_up(completion):
            self.num_query_tokens += completion.num_prompt_tokens
            self.num_hit_tokens += num_hits

    def _is_looked_up(self, completion: Completion) -> bool:
        wants_logprobs = completion.sampling.num_prompt_logprobs is not None
        has_logprobs = completion.are_prompt_logprobs_sent  # they need the whole prompt computed
        return (
            self._kv.enable_prefix_caching
            and completion.request.use_prefix_cache
            and (has_logprobs or not wants_logprobs)
        )
