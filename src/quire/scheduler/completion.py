"""Completion: one continuation of a request, from its arrival to its end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np

from quire.kv_cache.manager import BlockTable
from quire.kv_cache.prefix_hash import chain_seed, extend_chain
from quire.request import EngineRequest, FinishReason, RowSampling, Watch
from quire.step import JoinedRow, TokenLogprobs
from quire.step_output import CompletionTiming
from quire.structured import FREE, Constraint

NO_ROW = -1


@dataclass(slots=True, eq=False)
class Completion:
    """The scheduler's unit of work. While it runs, its tokens and counters are in the row table;
    while it waits, its tokens are in ``token_ids``."""

    request: EngineRequest
    index: int
    sampling: RowSampling
    order: int  # arrival order, the tie-breaker of every queue
    token_ids: np.ndarray  # [prompt + confirmed output tokens] int32
    num_prompt_tokens: int
    table: BlockTable  # not empty while running, or while it waits to continue a fork
    hash_seed: bytes
    hashes: list[bytes]  # of the full blocks of its known tokens
    constraint: Constraint = FREE
    row: int = NO_ROW
    num_forked: int = 0  # tokens whose KV its table holds while it waits, as a fork or parked beam
    num_cached_tokens: int = 0  # of its prompt, when it was first admitted
    num_told: int = 0  # tokens, the prompt's included, that the front end knows
    num_preemptions: int = 0
    num_told_preemptions: int = -1  # those that the front end knows; -1: it has had no delta
    scheduled_time: float = 0.0
    first_token_time: float = 0.0
    is_held: bool = False  # a beam whose next token the host has yet to choose
    finish_reason: FinishReason | None = None
    siblings: list[Completion] = field(default_factory=list)  # wait until this prompt is computed
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)  # chunks, until delivered
    are_prompt_logprobs_sent: bool = False

    @classmethod
    def first_of(
        cls, request: EngineRequest, order: int, table: BlockTable, constraint: Constraint = FREE
    ) -> Completion:
        """Completion 0 of ``request``."""
        return cls(
            request=request,
            index=0,
            sampling=request.sampling,
            order=order,
            token_ids=np.asarray(request.prompt_token_ids, dtype=np.int32),
            num_prompt_tokens=len(request.prompt_token_ids),
            table=table,
            hash_seed=chain_seed(request.cache_salt),
            hashes=[],
            constraint=constraint,
        )

    def sibling(self, index: int, table: BlockTable) -> Completion:
        """Completion ``index`` of the same request, with the tokens known so far."""
        return Completion(
            request=self.request,
            index=index,
            sampling=replace(
                self.sampling, seed=self.request.row_seed(index), num_prompt_logprobs=None
            ),
            order=self.order,
            token_ids=self.token_ids,  # never written in place
            num_prompt_tokens=self.num_prompt_tokens,
            table=table,
            hash_seed=self.hash_seed,
            hashes=list(self.hashes),
            constraint=self.constraint,
            num_cached_tokens=self.num_cached_tokens,
            scheduled_time=self.scheduled_time,
            first_token_time=self.first_token_time,
        )

    @property
    def queue_key(self) -> tuple[int, int, int]:
        """The smallest key goes first; under "fcfs" every priority is 0."""
        return (self.request.priority, self.order, self.index)

    @property
    def is_watched(self) -> bool:
        return self.request.watch is Watch.EVERY_STEP

    @property
    def is_beam(self) -> bool:
        return self.request.beam is not None

    @property
    def max_len(self) -> int:
        return self.num_prompt_tokens + self.request.max_tokens

    def joined_row(self) -> JoinedRow:
        """What the worker is told when the completion has got a row and its first blocks."""
        sampling = self.sampling
        if self.are_prompt_logprobs_sent:  # after a preemption they are not asked for again
            sampling = replace(sampling, num_prompt_logprobs=None)
        return JoinedRow(
            row=self.row,
            token_ids=self.token_ids,
            num_prompt_tokens=self.num_prompt_tokens,
            block_ids=tuple(list(entries) for entries in self.table.groups),
            sampling=sampling,
            constraint=self.constraint,
            is_beam=self.is_beam,
        )

    def extend_hashes(self, tokens: np.ndarray, block_size: int) -> None:
        """Name the full blocks of ``tokens``, all tokens known so far."""
        extend_chain(self.hashes, self.hash_seed, tokens, block_size)

    def take_logprobs(self) -> list[TokenLogprobs] | None:
        """Log-probabilities of the tokens that are told now; None: they were not asked for."""
        logprobs, self.logprobs = self.logprobs, []
        return logprobs if self.sampling.num_logprobs is not None else None

    @property
    def has_all_prompt_logprobs(self) -> bool:
        """False until the whole prompt is computed, and again after a preemption."""
        return sum(len(one.ranks) for one in self.prompt_logprobs) == self.num_prompt_tokens - 1

    def take_prompt_logprobs(self) -> TokenLogprobs | None:
        """The chunks, joined; None if there are none or they were taken before."""
        if not self.prompt_logprobs or self.are_prompt_logprobs_sent:
            return None
        self.are_prompt_logprobs_sent = True
        chunks = self.prompt_logprobs
        self.prompt_logprobs = []
        return TokenLogprobs.join(chunks)

    def timing(self) -> CompletionTiming:
        return CompletionTiming(
            arrival_time=self.request.arrival_time,
            scheduled_time=self.scheduled_time,
            first_token_time=self.first_token_time,
            finished_time=time.time(),
            num_preemptions=self.num_preemptions,
        )
