"""Admission: gives a waiting completion the blocks to begin with, or lets it wait; and takes back
blocks of waiting completions that others need more. Knows nothing about rows or turns.
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
    """The circumstances in which a completion was not admitted; while they last, it is not."""

    completion: Completion
    budget: int
    num_free: int
    awaited: tuple[bytes, ...]  # names of blocks not cached yet, by which its prefix would grow


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
        self.num_prompt_tokens = 0  # of all prompts that have begun to run; each counts once
        self.num_query_tokens = 0  # of those that were looked up in the prefix cache
        self.num_hit_tokens = 0  # tokens of these that were found there

    def admit(self, completion: Completion, budget: int) -> Span | None:
        """Give the completion blocks for its next ``budget`` tokens at most; None: it must wait."""
        if self.must_wait(completion, budget):
            return None
        is_fork = not completion.table.is_empty
        table = completion.table if is_fork else self._find_prefix(completion)
        start = completion.num_forked if is_fork else len(table) * self._kv.block_size
        count = len(completion.token_ids) - start
        if self._config.long_prefill_token_threshold:
            count = min(count, self._config.long_prefill_token_threshold)
        end = start + min(count, budget)
        may_begin = count <= budget or self._config.enable_chunked_prefill
        if not is_fork:
            if not may_begin or not self._has_room(completion, table, start + count):
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
        self._refusal = None  # cached blocks that the refused one would have revived may be in use
        return Span(start, end)

    def must_wait(self, completion: Completion, budget: int) -> bool:
        """Whether the completion was refused and would be again: since then no more blocks have
        become free, and no block that it could share has been cached."""
        refusal, pool = self._refusal, self._kv.pool
        return (
            refusal is not None
            and refusal.completion is completion
            and refusal.budget == budget
            and pool.num_free <= refusal.num_free
            and not any(pool.find(name) is not None for name in refusal.awaited)
        )

    def ask_again(self) -> None:
        """Forget the last refusal, so that the completion is tried again."""
        self._refusal = None

    def drop_forks(self) -> bool:
        """Take the blocks of waiting completions, which will compute those tokens anew.

        Begins with the one to be admitted last, and stops as soon as a block is free or has one
        owner left. Returns whether any completion waited with blocks.
        """
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

    def _has_room(self, completion: Completion, table: BlockTable, end: int) -> bool:
        """Whether there are blocks for what a whole step would take of it, even if this step is a
        short one: with fewer, a prompt would stall halfway for lack of blocks and be preempted.

        One that was preempted needs room for all its tokens as long as others hold blocks, which
        would grow and preempt it again before it has computed them anew.
        """
        step = self._config.max_num_batched_tokens
        if not completion.num_preemptions or self._kv.pool.is_unused:
            end = min(end, len(table) * self._kv.block_size + step)
        else:
            end = len(completion.token_ids)
        return self._kv.can_adopt_and_grow(table, end, step)

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
        """Called once per request: its other completions, and beams, do not compute the prompt."""
        self.num_prompt_tokens += completion.num_prompt_tokens
        if self._is_looked_up(completion):
            self.num_query_tokens += completion.num_prompt_tokens
            self.num_hit_tokens += num_hits

    def _is_looked_up(self, completion: Completion) -> bool:
        wants_logprobs = completion.sampling.num_prompt_logprobs is not None
        has_logprobs = completion.are_prompt_logprobs_sent  # before, the whole prompt is computed
        return (
            self._kv.enable_prefix_caching
            and completion.request.use_prefix_cache
            and (has_logprobs or not wants_logprobs)
        )
