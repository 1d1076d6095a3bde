"""What the engine core knows of a request: immutable data that crosses the process boundary.

A *request* is one user call; it has ``n`` *completions*, each a row of its own while it runs.
Knows nothing about text: prompts are token ids by now. Imports no torch.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quire.named_processors import NamedProcessor
from quire.structured import GrammarSpec, Thinking


class FinishReason(str, enum.Enum):
    """Why a completion ended, spelled as the OpenAI API spells it."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


class Watch(enum.Enum):
    """How often the front end wants to see a completion's tokens."""

    EVERY_STEP = "every_step"  # streams
    NOW_AND_THEN = "now_and_then"  # only stop strings are looked for
    AT_END = "at_end"  # tokens are wanted only once the completion has ended


@dataclass(frozen=True, kw_only=True, slots=True)
class RowSampling:
    """How one row is sampled: ``SamplingParams`` after validation, with every default filled in."""

    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0 is off
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0  # with the position, the only source of randomness of this row
    logit_bias: tuple[tuple[int, float], ...] = ()
    allowed_token_ids: tuple[int, ...] = ()  # empty: all
    bad_words_token_ids: tuple[tuple[int, ...], ...] = ()
    min_tokens: int = 0
    stop_token_ids: tuple[int, ...] = ()  # with the EOS ids unless ignore_eos
    ignored_eos_ids: tuple[int, ...] = ()  # EOS ids that do not end it
    ends_late: bool = False  # ignore_eos with a grammar: EOS only where nothing else is allowed
    num_logprobs: int | None = None  # top-k log-probabilities of each output token; -1 is all
    num_prompt_logprobs: int | None = None
    processed_logprobs: bool = (
        False  # of the logits after penalties, bias and masks, not the raw ones
    )
    logits_processors: tuple[Callable[..., Any], ...] = ()  # in-process engines only
    named_processors: tuple[NamedProcessor, ...] = ()

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def too_early_ids(self) -> tuple[int, ...]:
        """Tokens that are masked before ``min_tokens`` output tokens; none without such a limit."""
        return (*self.stop_token_ids, *self.ignored_eos_ids) if self.min_tokens else ()

    @property
    def runs_user_code(self) -> bool:
        """Whether functions of the user's read its tokens on the host at every step."""
        return bool(self.logits_processors or self.named_processors)


@dataclass(frozen=True, kw_only=True, slots=True)
class BeamSearch:
    """Beam search instead of sampling; the terms are those of ``transformers``' ``generate``."""

    width: int
    length_penalty: float = 1.0
    early_stopping: bool | str = False  # True, False or "never"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineRequest:
    """One user call as the engine core receives it."""

    request_id: str
    serial: int = 0  # distinguishes successive requests with the same id
    prompt_token_ids: list[int]
    sampling: RowSampling
    max_tokens: int  # output tokens; already bounded by max_model_len
    n: int = 1  # completions; a beam search has its width instead
    beam: BeamSearch | None = None
    arrival_time: float = 0.0  # time.time() of the user's call
    priority: int = 0  # smaller is sooner, under the "priority" policy
    watch: Watch = Watch.EVERY_STEP
    cache_salt: str | None = None  # requests share prefix blocks only with an equal salt
    grammar: GrammarSpec | None = None
    thinking: Thinking | None = None  # the thought before the grammar applies, or a limited one
    use_prefix_cache: bool = True  # False: compute the whole prompt

    @property
    def num_completions(self) -> int:
        """How many completions must end before the request has finished."""
        return self.n if self.beam is None else self.beam.width

    def row_seed(self, index: int) -> int:
        """The seed of completion ``index``."""
        return self.sampling.seed + index
