"""What the engine core tells the front end after a step. Knows no text. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from quire.request import EngineRequest, FinishReason
from quire.step import TokenLogprobs


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionTiming:
    """When things happened to a completion, as ``time.time()`` seconds; 0.0 is not yet."""

    arrival_time: float
    scheduled_time: float = 0.0
    first_token_time: float = 0.0
    finished_time: float = 0.0
    num_preemptions: int = 0


class CompletionDelta(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """New tokens of one completion, and its end. There is one per watched row and step, so
    it is a struct that is fast to make, send and read."""

    request_id: str
    serial: int = 0  # the request's: deltas of an aborted one may arrive late
    index: int
    new_token_ids: list[int]
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None  # the stop token id that ended it
    logprobs: list[TokenLogprobs] | None = None  # one per new token, when asked for
    prompt_logprobs: TokenLogprobs | None = None  # positions 1.., once, with index 0
    num_cached_tokens: int = 0  # prompt tokens taken from the prefix cache
    score: float | None = None  # beam search: sum of log-probabilities / length ** length_penalty
    cumulative_logprob: float | None = None  # when logprobs are computed, or for beams
    error: str | None = None  # with FinishReason.ERROR
    is_refusal: bool = False  # with an error: caused by the request, not the engine
    timing: CompletionTiming | None = None  # with the first, also after a preemption, and the last


def ends_without_tokens(
    request: EngineRequest, reason: FinishReason, error: str | None = None
) -> list[CompletionDelta]:
    """Final deltas for all completions of a request that produced no tokens."""
    return [
        CompletionDelta(
            request_id=request.request_id,
            serial=request.serial,
            index=index,
            new_token_ids=[],
            finish_reason=reason,
            error=error,
            is_refusal=reason is FinishReason.ERROR,
        )
        for index in range(request.num_completions)
    ]


# Histogram of steps by tokens: the upper bounds of its buckets, but for the last, unbounded one.
STEP_TOKENS_BOUNDS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStats:
    """The state of an engine at one moment."""

    num_running: int = 0  # completions that own a row
    num_waiting: int = 0  # completions without a row, of requests that wait or that run
    num_blocks: int = 0
    num_free_blocks: int = 0  # unused or only cached
    num_cached_blocks: int = 0
    num_shared_blocks: int = 0  # referenced more than once
    block_size: int = 0
    kv_waste: float = 0.0  # share of the slots reserved by running rows that hold no token
    num_preemptions: int = 0  # since the start, as all counts below
    num_steps: int = 0
    num_prompt_tokens: int = 0  # of prompts that began to run
    num_generation_tokens: int = 0
    num_prefix_query_tokens: int = 0  # of prompts that were looked up in the prefix cache
    num_prefix_hit_tokens: int = 0  # of those, found there
    num_evicted_blocks: int = 0  # cached blocks that were reused for other content
    num_step_tokens: int = 0  # of all steps together: prompts, outputs and what is recomputed
    steps_by_tokens: tuple[int, ...] = ()  # one count for each of STEP_TOKENS_BOUNDS, and the rest


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFacts:
    """Facts that are known only once the engine has started."""

    num_blocks: int
    block_size: int
    max_num_seqs: int
    max_model_len: int
    weight_bytes: int
    kv_cache_bytes: int
    attention_backend: str
    phase_seconds: dict[str, float] = field(default_factory=dict)  # start-up phase -> seconds

    @property
    def kv_capacity_tokens(self) -> int:
        return (self.num_blocks - 1) * self.block_size  # block 0 is the null block

    @property
    def max_concurrency(self) -> float:
        """Requests of full length that fit at once."""
        return self.kv_capacity_tokens / self.max_model_len
