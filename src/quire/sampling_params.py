"""How users specify sampling: `SamplingParams` and related classes.

Owns names, defaults, limits and the messages about wrong values. Knows nothing about tensors,
tokenizers or the engine: `row_sampling.py` turns these classes into what a row needs.
"""

from __future__ import annotations

import copy
import enum
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn, TypeVar

from quire.compat import unknown_name
from quire.request import BeamSearch
from quire.sampling_limits import (
    MAX_N,
    NOT_BUILT,
    ONLY_FOR_BEAMS,
    RULES,
    WITHOUT_EFFECT_ON_BEAMS,
    int_in,
    is_int,
)
from quire.shown import shown
from quire.structured import (
    GrammarSpec,
    GuidedDecodingParams,
    StructuredOutputsParams,
    from_mapping,
    to_grammar_spec,
)

__all__ = [
    "BeamSearchParams",
    "GuidedDecodingParams",
    "RequestOutputKind",
    "SamplingParams",
    "SamplingType",
    "StructuredOutputsParams",
]

C = TypeVar("C", bound=type)

GREEDY_BELOW = 1e-5  # temperatures under this are 0
_LISTS = ("stop", "stop_token_ids", "bad_words")  # always made lists, since users append to them
_IMMUTABLE = (type(None), bool, int, float, str, enum.Enum)
_STRUCTURED = (StructuredOutputsParams, GuidedDecodingParams, GrammarSpec)


class RequestOutputKind(enum.Enum):
    """What each `RequestOutput` of a request holds."""

    CUMULATIVE = 0  # everything so far
    DELTA = 1  # only what is new
    FINAL_ONLY = 2  # one output, at the end


class SamplingType(enum.IntEnum):
    """How the tokens of a request are drawn."""

    GREEDY = 0
    RANDOM = 1
    RANDOM_SEED = 2


def _names_near_misses(cls: C) -> C:
    """Let a dataclass's constructor suggest a known name for an unknown argument."""
    plain_init = vars(cls)["__init__"]
    names = [item.name for item in fields(cls)]

    @functools.wraps(plain_init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            plain_init(self, *args, **kwargs)
        except TypeError:
            unknown = [name for name in kwargs if name not in names]
            if not unknown:
                raise
            raise TypeError(f"{cls.__name__}: {unknown_name(unknown[0], names)}") from None

    __init__.__signature__ = inspect.signature(plain_init)  # type: ignore[attr-defined]
    cls.__init__ = __init__  # type: ignore[misc]
    return cls


@_names_near_misses
@dataclass
class SamplingParams:
    """How the tokens of one request are chosen and reported.

    A plain mutable class: copy it, change it, subclass it (annotated class attributes of a subclass
    become its fields and defaults, with or without ``@dataclass``). Values are checked when it is
    made and again when a request is submitted; a wrong one is a ``ValueError`` that names the
    limit. None means none, or no limit, unless a field says otherwise.

    How many, and where they end:

    n: completions of the prompt; an integer from 1 to 16384.
    best_of: compute so many and return the ``n`` of the highest log-probability; None or an integer
        from 1 to 16384, at least ``n``.
    max_tokens: the most tokens of a completion; None or an integer of at least 1. None: what the
        context holds.
    min_tokens: so many come before a stop token, an end-of-sequence token (with ``ignore_eos``,
        too) or the end of a stop string; an integer from 0 to 2147483647, at most ``max_tokens``.
    stop: texts that end a completion; a string or a list of non-empty strings. Kept as a list. In
        beam search each must be one special token.
    stop_token_ids: tokens that end a completion; a list of token ids, at most 1024.
    ignore_eos: go on behind the model's own end-of-sequence tokens (a grammar still ends).
    include_stop_str_in_output: leave the stop string that was found in the text.

    How a token is drawn:

    temperature: divides the logits; a number in [0, 2]. 0 is greedy, other values below 0.01 are
        raised to it.
    top_k: keep so many of the likeliest tokens; an integer of at least -1. 0 and -1 keep all.
    top_p: keep the likeliest tokens that together have so much probability; a number in (0, 1].
    min_p: drop tokens less likely than this share of the likeliest; a number in [0, 1].
    seed: of this request's random numbers; None or an integer of 64 bits. None and -1: the engine
        chooses one. Completion i of ``n`` has ``seed + i``, so seeds of requests with the same
        prompt should be at least ``n`` apart.

    What is made less likely, or impossible:

    presence_penalty: taken off the logits of tokens in the output; a number in [-2, 2].
    frequency_penalty: the same, once for each time that they occur; a number in [-2, 2].
    repetition_penalty: above 1 makes tokens of prompt and output less likely; a number from 1e-06
        to 1e+06.
    logit_bias: added to logits; a dict from token id to a number of at most 1e+30.
    allowed_token_ids: no others may come; a non-empty list of token ids.
    bad_words: words that may not come as the tokens that the tokenizer writes them with, with or
        without a space before (of other, smaller tokens they may); a list of non-empty strings, at
        most 128 token sequences and 4096 bytes.
    logits_processors: functions of (output_token_ids, logits) that return the logits, or names of
        such; a list of functions or names. Functions need the engine in this process.
    structured_outputs: the grammar of the text; a `StructuredOutputsParams`, or a dict such as
        ``{"json": schema}``. Excludes ``allowed_token_ids``.
    guided_decoding: the older name of ``structured_outputs``; only one of them.
    thinking_token_budget: end a thought after so many tokens; None, -1 or an integer of at least 0.
        Needs the engine's ``reasoning_parser``. -1: no limit.

    Beam search:

    use_beam_search: return the ``n`` best of ``best_of`` (or ``n``) beams. top_p, top_k, min_p,
        logprobs and prompt_logprobs have no place in it.
    length_penalty: a beam's score is its log-probability / length ** this; a number in [-10, 10].
    early_stopping: whether to end when enough beams are finished; True, False or "never". False
        asks whether a better one is likely, "never" whether it is possible.

    What is reported:

    logprobs: log-probabilities of so many likeliest tokens at each place, beside that of the token
        that came; None, -1 or an integer of at least 0, at most the engine's ``max_logprobs`` (20).
        -1: the whole vocabulary.
    prompt_logprobs: the same of the prompt's tokens; None, -1 or an integer of at least 0.
    detokenize: whether there is text; without it there are no stop strings.
    skip_special_tokens: leave special tokens out of the text.
    spaces_between_special_tokens: put spaces between them; only some slow tokenizers do.
    output_kind: what each `RequestOutput` holds; a `RequestOutputKind`. `LLM` sets its own.
    stream_interval: tokens from one output of a stream to the next; None or an integer of at least
        1.

    The rest:

    truncate_prompt_tokens: keep only so many of the prompt's last tokens, those that the tokenizer
        added to a text among them; None, -1 or an integer of at least 1, at most the engine's
        ``max_model_len``. -1: what ``max_tokens`` (else ``min_tokens``, or 1) leaves of that.
    skip_reading_prefix_cache: compute the whole prompt, even where the cache has a part of it.
    skip_clone: copies share their lists and dicts with this object.

    Not supported yet; anything but the default is a ``ValueError``:

    watermarking, prompt_logprob_token_ids, prompt_logprob_start, logprob_token_ids, flat_logprobs,
    extra_args, repetition_detection, routed_experts_prompt_start, trace_decode_token_ids,
    output_text_buffer_length
    """

    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    watermarking: bool | None = field(default=None, repr=False)
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    prompt_logprob_token_ids: Any = field(default=None, repr=False)
    prompt_logprob_start: int | None = field(default=None, repr=False)
    logprob_token_ids: list[int] | None = field(default=None, repr=False)
    flat_logprobs: bool = field(default=False, repr=False)
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    stream_interval: int | None = field(default=None, repr=False)
    skip_clone: bool = field(default=False, repr=False)
    output_text_buffer_length: int = field(default=0, repr=False)
    structured_outputs: StructuredOutputsParams | GrammarSpec | dict[str, Any] | None = None
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    extra_args: dict[str, Any] | None = None
    bad_words: list[str] | None = None
    skip_reading_prefix_cache: bool | None = field(default=None, repr=False)
    thinking_token_budget: int | None = field(default=None, repr=False)
    repetition_detection: Any = field(default=None, repr=False)
    routed_experts_prompt_start: int = field(default=0, repr=False)
    trace_decode_token_ids: list[int] | None = field(default=None, repr=False)
    # Names of older engines that users still write.
    best_of: int | None = None
    guided_decoding: GuidedDecodingParams | dict[str, Any] | None = field(default=None, repr=False)
    logits_processors: list[Callable[..., Any] | str | dict[str, Any]] | None = None
    truncate_prompt_tokens: int | None = None
    use_beam_search: bool = False
    early_stopping: bool | str = False
    length_penalty: float = 1.0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # Subclasses of other engines' SamplingParams are undecorated annotated classes.
        super().__init_subclass__(**kwargs)
        has_own = "__init__" in vars(cls)
        dataclass(cls)
        if not has_own:
            _names_near_misses(cls)

    def __post_init__(self) -> None:
        self.verify()

    @classmethod
    def from_optional(cls, **fields: Any) -> SamplingParams:
        """As the constructor, but ``None`` means the default (except for ``max_tokens``).

        ``logit_bias`` may have numeric strings as keys; its values are clamped to [-100, 100].
        """
        given = {k: v for k, v in fields.items() if v is not None or k == "max_tokens"}
        if "logit_bias" in given:
            given["logit_bias"] = _clamped_bias(given["logit_bias"])
        return cls(**given)

    def verify(self) -> None:
        """Bring aliases of values to one form and raise ``ValueError`` at the first wrong one."""
        self._normalise()
        for name, rule in RULES.items():
            value = getattr(self, name)
            if value is not _DEFAULTS[name] and not rule.accepts(value):
                raise ValueError(f"{name} must be {rule.limit}, got {shown(value)}; {rule.remedy}.")
        for name, why in NOT_BUILT.items():
            if getattr(self, name) is not _DEFAULTS[name] and _is_set(self, name):
                raise ValueError(
                    f"{name} is not supported yet, got {shown(getattr(self, name))}: {why}; "
                    f"leave {name} unset."
                )
        self._drop_repeats()
        self._verify_together()

    def clone(self) -> SamplingParams:
        """An independent copy; logits processors are shared, they may not be copyable."""
        other = copy.copy(self)
        if not self.skip_clone:
            memo = {id(one): one for one in self.logits_processors or ()}
            for name, value in vars(self).items():
                if not isinstance(value, _IMMUTABLE):  # most are, and `deepcopy` is slow for them
                    vars(other)[name] = copy.deepcopy(value, memo)
        return other

    @property
    def sampling_type(self) -> SamplingType:
        if self.temperature < GREEDY_BELOW:
            return SamplingType.GREEDY
        return SamplingType.RANDOM if self.seed is None else SamplingType.RANDOM_SEED

    @property
    def num_completions(self) -> int:
        """How many continuations are computed: ``best_of`` when it is given, else ``n``."""
        return self.n if self.best_of is None else self.best_of

    @property
    def is_ranked(self) -> bool:
        """Whether only the best ``n`` of ``best_of`` are returned, which are known at the end."""
        return self.num_completions > self.n

    @property
    def all_stop_token_ids(self) -> set[int]:
        """The user's stop token ids; only the engine knows the model's EOS tokens."""
        return set(self.stop_token_ids or ())

    @property
    def update_from_generation_config(self) -> NoReturn:
        raise AttributeError(
            f"{type(self).__name__}.update_from_generation_config is not built yet: the engine "
            "ends texts as the model's generation config says; for its other defaults begin with "
            "LLM.get_default_sampling_params()"
        )

    @property
    def grammar(self) -> GrammarSpec | None:
        """The constraint on the text, by whichever name it was given."""
        given = self.guided_decoding if self.structured_outputs is None else self.structured_outputs
        return None if given is None else to_grammar_spec(given)

    @property
    def is_constrained(self) -> bool:
        """Whether there is a `grammar`, which takes a while to make."""
        return self.structured_outputs is not None or self.guided_decoding is not None

    @property
    def beam(self) -> BeamSearch | None:
        """Beam search instead of sampling, when it was asked for."""
        if not self.use_beam_search:
            return None
        return BeamSearch(
            width=self.num_completions,
            length_penalty=float(self.length_penalty),
            early_stopping=self.early_stopping,
        )

    def _normalise(self) -> None:
        """Normalise values; assigns only what changes, since a subclass may watch attributes."""
        for name in _LISTS:
            value = getattr(self, name)
            if value is None or isinstance(value, tuple):
                setattr(self, name, list(value or ()))
        if isinstance(self.stop, str):
            self.stop = [self.stop]
        if self.seed == -1:
            self.seed = None
        if isinstance(self.logprobs, bool):
            self.logprobs = 1 if self.logprobs else None
        if isinstance(self.prompt_logprobs, bool):
            self.prompt_logprobs = 1 if self.prompt_logprobs else None
        for name in ("structured_outputs", "guided_decoding"):
            value = getattr(self, name)
            if isinstance(value, dict):
                setattr(self, name, from_mapping(value))

    def _drop_repeats(self) -> None:
        """Remove repeated stop token ids and bad words, whose types have been checked."""
        for name in ("stop_token_ids", "bad_words"):
            value = getattr(self, name)
            if len(set(value)) < len(value):
                setattr(self, name, list(dict.fromkeys(value)))

    def _verify_together(self) -> None:
        """Rules over more than one parameter, or over types that the table does not know."""
        if not isinstance(self.output_kind, RequestOutputKind):
            raise ValueError(
                f"output_kind must be a RequestOutputKind, got {self.output_kind!r}; "
                "use RequestOutputKind.CUMULATIVE."
            )
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens must be at most max_tokens={self.max_tokens}, got {self.min_tokens}; "
                "lower min_tokens or raise max_tokens."
            )
        if self.best_of is not None and self.best_of < self.n:
            raise ValueError(
                f"best_of must be at least n={self.n}, got {self.best_of}; raise best_of or leave "
                "it unset."
            )
        for name in ("structured_outputs", "guided_decoding"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, _STRUCTURED):
                raise ValueError(
                    f"{name} must be a StructuredOutputsParams or a dict such as "
                    f"{{'json': schema}}, got {value!r}; pass it under the name of its kind."
                )
        if self.structured_outputs is not None and self.guided_decoding is not None:
            raise ValueError(
                "guided_decoding is the older name of structured_outputs, got both; keep "
                "structured_outputs."
            )
        if self.is_constrained and self.allowed_token_ids:
            raise ValueError(
                "allowed_token_ids cannot be combined with structured_outputs: together they may "
                "allow nothing; put what is allowed into the grammar."
            )
        if self.stop and not self.detokenize:
            raise ValueError(
                f"stop strings need text, got stop={self.stop!r} with detokenize=False; "
                "use stop_token_ids, or detokenize=True."
            )
        foreign = WITHOUT_EFFECT_ON_BEAMS if self.use_beam_search else ONLY_FOR_BEAMS
        for name, neutral in foreign.items():
            if getattr(self, name) not in neutral:
                kind = "has no effect in" if self.use_beam_search else "needs"
                remedy = "remove it" if self.use_beam_search else "set use_beam_search=True"
                raise ValueError(
                    f"{name} {kind} beam search, got {getattr(self, name)!r}; "
                    f"{remedy} or leave it at {neutral[0]!r}."
                )


# Most values of most requests are defaults, which need no check.
_DEFAULTS = {item.name: item.default for item in fields(SamplingParams)}


@_names_near_misses
@dataclass
class BeamSearchParams:
    """Beam search with ``beam_width`` beams, all of which are returned, best first.

    A wrong value is a ``ValueError`` that names its limit.

    beam_width: an integer from 1 to 16384.
    max_tokens: the most tokens of a beam; None or an integer of at least 1. None: what the context
        holds.
    ignore_eos: go on behind the model's end-of-sequence tokens.
    temperature: divides the logits; a number in [0, 2]. 0 and 1: the model's own probabilities.
    length_penalty: score = log-probability / length ** this; a number in [-10, 10].
    include_stop_str_in_output: leave the token that ended a beam in its text, where
        ``skip_special_tokens`` does not take it out. The beam's tokens have it always.
    early_stopping: whether to end when enough beams are finished; True, False or "never", as in
        `SamplingParams`.
    structured_outputs: the grammar of the text; a `StructuredOutputsParams` or a dict.
    skip_special_tokens: leave special tokens out of the text.
    allowed_token_ids: no others may come; a non-empty list of token ids.
    watermarking: not supported yet; anything but None or False is a ``ValueError``.
    """

    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    length_penalty: float = 1.0
    include_stop_str_in_output: bool = False
    early_stopping: bool | str = False
    structured_outputs: StructuredOutputsParams | GrammarSpec | dict[str, Any] | None = None
    skip_special_tokens: bool = True
    allowed_token_ids: list[int] | None = None
    watermarking: bool | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not int_in(1, MAX_N)(self.beam_width):
            raise ValueError(
                f"beam_width must be an integer from 1 to {MAX_N}, got {self.beam_width!r}; "
                "give at least 1; for greedy search use SamplingParams(temperature=0)."
            )
        self.to_sampling_params()

    def to_sampling_params(self) -> SamplingParams:
        """The equivalent `SamplingParams`, which is all that the engine knows."""
        return SamplingParams(
            n=self.beam_width,
            max_tokens=self.max_tokens,
            ignore_eos=self.ignore_eos,
            temperature=self.temperature,
            length_penalty=self.length_penalty,
            include_stop_str_in_output=self.include_stop_str_in_output,
            early_stopping=self.early_stopping,
            structured_outputs=self.structured_outputs,
            skip_special_tokens=self.skip_special_tokens,
            allowed_token_ids=self.allowed_token_ids,
            watermarking=self.watermarking,
            use_beam_search=True,
        )


def _is_set(params: SamplingParams, name: str) -> bool:
    value = getattr(params, name)
    if value is None or value is False or value == {} or value == []:
        return False
    default = type(params).__dataclass_fields__[name].default
    return not (is_int(value) and default is not None and value == default)


def _clamped_bias(bias: dict[Any, float]) -> dict[int, float]:
    try:
        return {int(key): min(100.0, max(-100.0, float(one))) for key, one in bias.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            f"logit_bias must be a dict from token id to a number, got {shown(bias)}; "
            'pass {"1234": -100}, keys as integers or numeric strings.'
        ) from None
