"""An engine core without a model: each running row gets one random token per step.

Steps last as long as `StepTimes` says. It has neither KV blocks nor weights, only a queue and the
deltas, so that a server on top of it shows the cost of the front end.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from quire.config import EngineConfig
from quire.engine.core_loop import ReportPhase
from quire.request import EngineRequest, FinishReason
from quire.step_output import (
    CompletionDelta,
    CompletionTiming,
    EngineFacts,
    EngineStats,
    ends_without_tokens,
)

FIRST_TOKEN_ID = 300  # after the special tokens and the bytes: whole words
VARIABLE = "INSTANT_CORE_MS"  # since the builder of a core gets only the engine's config


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTimes:
    """How long steps last."""

    step_ms: float
    prompt_ms: float  # added for each prompt that begins in the step

    def seconds(self, num_prompts: int) -> float:
        return (self.step_ms + num_prompts * self.prompt_ms) / 1000

    def tell(self) -> None:
        """Pass the times to cores that this process starts, in the environment."""
        os.environ[VARIABLE] = f"{self.step_ms} {self.prompt_ms}"

    @classmethod
    def told(cls) -> StepTimes:
        step_ms, prompt_ms = map(float, os.environ[VARIABLE].split())
        return cls(step_ms=step_ms, prompt_ms=prompt_ms)


@dataclass(slots=True)
class _Row:
    request: EngineRequest
    num_left: int
    scheduled_time: float
    first_token_time: float = 0.0


class InstantCore:
    """Has the interface of `EngineCore`. A step first waits for the end of the one before it."""

    def __init__(self, config: EngineConfig, times: StepTimes) -> None:
        self.facts = EngineFacts(
            num_blocks=2,
            block_size=config.scheduler.max_num_seqs * config.model.max_model_len,
            max_num_seqs=config.scheduler.max_num_seqs,
            max_model_len=config.model.max_model_len,
            weight_bytes=0,
            kv_cache_bytes=0,
            attention_backend="none",
        )
        self._times = times
        self._max_num_tokens = config.scheduler.max_num_batched_tokens
        self._token_ids = range(FIRST_TOKEN_ID, config.model.vocab_size)
        self._random = Random(0)
        self._waiting: deque[EngineRequest] = deque()
        self._rows: dict[str, _Row] = {}
        self._ends: list[CompletionDelta] = []
        self._step_ends = 0.0  # of the step under way, on the clock of `perf_counter`
        self._num_steps = 0

    def step(self) -> list[CompletionDelta]:
        """Wait for the end of the step under way, begin the next, and return the tokens so far."""
        time.sleep(max(0.0, self.seconds_to_spare()))
        began = time.perf_counter()
        deltas = [*self._ends, *self._advance()]
        self._ends = []
        num_prompts = self._admit()
        self._step_ends = began + self._times.seconds(num_prompts) if self._rows else 0.0
        self._num_steps += len(self._rows) > 0
        return deltas

    @property
    def has_unfinished(self) -> bool:
        return bool(self._waiting or self._rows or self._ends)

    def seconds_to_spare(self) -> float:
        return self._step_ends - time.perf_counter()

    def add_request(self, request: EngineRequest) -> None:
        if request.num_completions > 1:
            raise ValueError(f"n={request.num_completions}: this core has one completion a request")
        self._waiting.append(request)

    def abort(self, request_ids: Iterable[str], *, keeps_tokens: bool = False) -> None:
        ids = set(request_ids)
        given_up = [one for one in self._waiting if one.request_id in ids]
        self._waiting = deque(one for one in self._waiting if one.request_id not in ids)
        given_up += [row.request for name in ids if (row := self._rows.pop(name, None)) is not None]
        if keeps_tokens:
            for request in given_up:
                self._ends += ends_without_tokens(request, FinishReason.ABORT)

    def finish(self, request_id: str, index: int) -> None:
        self.abort([request_id])

    def warm_up_more(self) -> bool:
        return False

    def stats(self) -> EngineStats:
        return EngineStats(
            num_running=len(self._rows), num_waiting=len(self._waiting), num_steps=self._num_steps
        )

    def block_map(self) -> bytes:
        return b""

    def reset_prefix_cache(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def _advance(self) -> list[CompletionDelta]:
        """One more token for every row; rows that reach their length end."""
        now = time.time()
        token_ids = self._random.choices(self._token_ids, k=len(self._rows))
        pairs = zip(list(self._rows.values()), token_ids, strict=True)
        return [self._delta(row, token_id, now) for row, token_id in pairs]

    def _delta(self, row: _Row, token_id: int, now: float) -> CompletionDelta:
        request = row.request
        row.num_left -= 1
        row.first_token_time = row.first_token_time or now
        if not row.num_left:
            del self._rows[request.request_id]
        return CompletionDelta(
            request_id=request.request_id,
            serial=request.serial,
            index=0,
            new_token_ids=[token_id],
            finish_reason=None if row.num_left else FinishReason.LENGTH,
            timing=None if row.num_left else _timing(row, now),
        )

    def _admit(self) -> int:
        """Start waiting requests whose whole prompts fit in the step's token budget beside the
        rows (the first always does); how many."""
        now = time.time()
        num_prompts, num_tokens = 0, len(self._rows)
        while self._waiting and len(self._rows) < self.facts.max_num_seqs:
            num_tokens += len(self._waiting[0].prompt_token_ids)
            if num_prompts and num_tokens > self._max_num_tokens:
                break
            request = self._waiting.popleft()
            self._rows[request.request_id] = _Row(request, request.max_tokens, now)
            num_prompts += 1
        return num_prompts


def _timing(row: _Row, now: float) -> CompletionTiming:
    return CompletionTiming(
        arrival_time=row.request.arrival_time,
        scheduled_time=row.scheduled_time,
        first_token_time=row.first_token_time,
        finished_time=now,
    )


def build_instant_core(config: EngineConfig, report: ReportPhase) -> InstantCore:
    return InstantCore(config, StepTimes.told())


BUILD_INSTANT_CORE = f"{__name__}:{build_instant_core.__name__}"
