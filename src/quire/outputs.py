"""What a caller gets back: request, completion and beam outputs, log-probabilities, timings.

Field names, order and meaning are those that users of vLLM know. Knows nothing about how the
values are made. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Logprob:
    """The log-probability of one candidate token at one position."""

    logprob: float
    rank: int | None = None  # 1 is the most likely token
    decoded_token: str | None = None  # U+FFFD for a part of a character


# One dict per position: the token itself first, then the most likely ones, best first.
PromptLogprobs = list[dict[int, Logprob] | None]  # the first prompt token has none
SampleLogprobs = list[dict[int, Logprob]]


@dataclass
class CompletionOutput:
    """One continuation of a prompt. Check ``finish_reason``: a failed one does not raise."""

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    logprobs: SampleLogprobs | None
    routed_experts: Any = None  # always None: kept for the position of the fields after it
    finish_reason: str | None = None  # "stop", "length", "abort" or "error"; None while it runs
    stop_reason: int | str | None = None  # a string or token id; None: the tokenizer's EOS
    lora_request: Any = None
    sampling_mask: Any = None  # always None, as the next two
    spec_decode_metrics: Any = None
    weight_versions: Any = None
    score: float | None = None  # beam search: sum of log-probabilities / length ** length_penalty
    # The cause if finish_reason is "error". Text and tokens are what was output before: nothing if
    # outputs come only at the end (FINAL_ONLY, best_of, beams).
    error: str | None = None
    is_refusal: bool = False  # with an error: caused by the request, not the engine

    def finished(self) -> bool:
        return self.finish_reason is not None

    def append(self, new: CompletionOutput) -> None:
        """Continue this piece of a stream with the piece that follows it; its lists grow."""
        self.text += new.text
        self.token_ids += new.token_ids
        if self.logprobs is None:
            self.logprobs = new.logprobs
        else:
            self.logprobs += new.logprobs or []
        self.cumulative_logprob = new.cumulative_logprob
        self.finish_reason, self.stop_reason = new.finish_reason, new.stop_reason
        self.score, self.error, self.is_refusal = new.score, new.error, new.is_refusal


@dataclass
class RequestStateStats:
    """When things happened to a request, as ``time.time()`` seconds; 0.0 is not yet.

    The properties are the names of older versions.
    """

    num_generation_tokens: int = 0
    num_preemptions: int = 0
    arrival_time: float = 0.0
    queued_ts: float = 0.0
    scheduled_ts: float = 0.0
    first_token_ts: float = 0.0
    last_token_ts: float = 0.0
    first_token_latency: float = 0.0  # seconds from arrival to the first token
    is_corrupted: bool = False
    is_watermarked: bool = False

    @property
    def first_scheduled_time(self) -> float | None:
        return self.scheduled_ts or None

    @property
    def first_token_time(self) -> float | None:
        return self.first_token_ts or None

    @property
    def last_token_time(self) -> float:
        return self.last_token_ts

    @property
    def finished_time(self) -> float | None:
        return self.last_token_ts or None

    @property
    def time_in_queue(self) -> float | None:
        return self.scheduled_ts - self.queued_ts if self.scheduled_ts else None


RequestMetrics = RequestStateStats  # its older name


@dataclass
class RequestOutput:
    """A request and its completions so far; ``finished`` when all of them have ended."""

    request_id: str
    prompt: str | None  # None when the caller gave token ids only
    prompt_token_ids: list[int] | None
    prompt_logprobs: PromptLogprobs | None
    outputs: list[CompletionOutput]
    finished: bool
    metrics: RequestStateStats | None = None
    lora_request: Any = None
    encoder_prompt: str | None = None
    encoder_prompt_token_ids: list[int] | None = None
    num_cached_tokens: int | None = None  # prompt tokens taken from the prefix cache
    num_cache_creation_tokens: int | None = None
    prompt_token_id_logprobs: Any = field(default=None, kw_only=True)
    kv_transfer_params: dict[str, Any] | None = field(default=None, kw_only=True)
    ec_transfer_params: dict[str, Any] | None = field(default=None, kw_only=True)

    def add(self, new: RequestOutput, aggregate: bool) -> None:
        """Merge a later output of this request into this one, which nobody has read yet.

        ``aggregate`` says that outputs are deltas and must be joined; otherwise the new
        completions replace the old ones of the same index.
        """
        self.finished |= new.finished
        self.metrics = new.metrics or self.metrics
        self.prompt_logprobs = self.prompt_logprobs or new.prompt_logprobs
        self.num_cached_tokens = new.num_cached_tokens
        known = {output.index: i for i, output in enumerate(self.outputs)}
        for output in new.outputs:
            if output.index not in known:
                self.outputs.append(output)
            elif aggregate:
                self.outputs[known[output.index]].append(output)
            else:
                self.outputs[known[output.index]] = output


@dataclass
class BeamSearchSequence:
    """One beam: ``tokens`` are prompt and continuation, ``text`` likewise."""

    tokens: list[int]
    logprobs: list[dict[int, Logprob]]
    lora_request: Any = None
    cum_logprob: float = 0.0
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    score: float | None = (
        None  # cum_logprob / length ** length_penalty, what the beams are ranked by
    )


@dataclass
class BeamSearchOutput:
    """The beams of one prompt, best first."""

    sequences: list[BeamSearchSequence]
