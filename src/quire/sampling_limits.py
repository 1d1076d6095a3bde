"""The limits of sampling parameters, as data: allowed values, and the remedy for others.

Knows the names of the parameters, not the class that holds them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from quire.named_processors import NamedProcessor

MAX_N = 16384
# Large enough to forbid a token (or, inverted, to force it), and small enough that a scaled logit
# stays far from the largest float32.
MAX_REPETITION_PENALTY = 1e6
MAX_INT32 = 2**31 - 1  # counts are stored in int32 arrays
MAX_FLOAT32 = (2 - 2**-23) * 2.0**127
MAX_BIAS = 1e30  # a biased logit stays finite after penalties scale it


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """The limit of one parameter, in code and in words."""

    accepts: Callable[[Any], bool]
    limit: str
    remedy: str


def is_int(value: Any) -> bool:
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def is_real(value: Any) -> bool:
    return type(value) is float or (isinstance(value, Real) and not isinstance(value, bool))


def int_in(low: int, high: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: is_int(value) and low <= value <= high


def _real_in(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: is_real(value) and low <= float(value) <= high


def _positive(high: float) -> Callable[[Any], bool]:
    within = _real_in(0.0, high)
    return lambda value: within(value) and 0.0 < float(value) < math.inf


def _optional(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or accepts(value)


def _list_of(accepts: Callable[[Any], bool], *, least: int = 0) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, (list, tuple)) and len(value) >= least and all(map(accepts, value))
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_bias(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(map(int_in(0), value))
        and all(
            (type(bias) is float or isinstance(bias, Real)) and bias <= MAX_BIAS
            for bias in value.values()
        )
    )


def _is_processor(value: Any) -> bool:
    return callable(value) or isinstance(value, (str, Mapping, NamedProcessor))


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


_BOOL = Rule(accepts=_is_bool, limit="True or False", remedy="pass a bool")
_PENALTY = Rule(
    accepts=_real_in(-2.0, 2.0), limit="a number in [-2, 2]", remedy="use 0.0 for no penalty"
)
_NUM_LOGPROBS = Rule(
    accepts=_optional(int_in(-1, MAX_INT32)),
    limit="None, -1 or an integer of at least 0",
    remedy="use None for none; -1, the whole vocabulary, needs an engine with max_logprobs=-1",
)
RULES: dict[str, Rule] = {
    "n": Rule(
        accepts=int_in(1, MAX_N),
        limit=f"an integer from 1 to {MAX_N}",
        remedy="send several requests for more completions",
    ),
    "best_of": Rule(
        accepts=_optional(int_in(1, MAX_N)),
        limit=f"None or an integer from 1 to {MAX_N}",
        remedy="leave it unset to return every completion",
    ),
    "presence_penalty": _PENALTY,
    "frequency_penalty": _PENALTY,
    "repetition_penalty": Rule(
        accepts=_real_in(1 / MAX_REPETITION_PENALTY, MAX_REPETITION_PENALTY),
        limit=f"a number from {1 / MAX_REPETITION_PENALTY:g} to {MAX_REPETITION_PENALTY:g}",
        remedy="use 1.0 for no penalty",
    ),
    "temperature": Rule(
        accepts=_real_in(0.0, 2.0), limit="a number in [0, 2]", remedy="use 0 for greedy"
    ),
    "top_p": Rule(
        accepts=_positive(1.0), limit="a number in (0, 1]", remedy="use 1.0 to keep all tokens"
    ),
    "top_k": Rule(
        accepts=int_in(-1),
        limit="an integer of at least -1",
        remedy="use 0 or -1 to keep all tokens",
    ),
    "min_p": Rule(
        accepts=_real_in(0.0, 1.0), limit="a number in [0, 1]", remedy="use 0.0 to switch it off"
    ),
    "seed": Rule(
        accepts=_optional(int_in(-(2**63), 2**64 - 1)),
        limit="None or an integer of 64 bits",
        remedy="use None for a random seed",
    ),
    "stop": Rule(
        accepts=_list_of(_is_text),
        limit="a string or a list of non-empty strings",
        remedy="remove the empty or foreign entries",
    ),
    "stop_token_ids": Rule(
        accepts=_list_of(int_in(0)),
        limit="a list of token ids",
        remedy="pass integers of at least 0",
    ),
    "max_tokens": Rule(
        accepts=_optional(int_in(1)),
        limit="None or an integer of at least 1",
        remedy="use None for the rest of the context",
    ),
    "min_tokens": Rule(
        accepts=int_in(0, MAX_INT32),
        limit=f"an integer from 0 to {MAX_INT32}",
        remedy="use 0 for no minimum",
    ),
    "logprobs": _NUM_LOGPROBS,
    "prompt_logprobs": _NUM_LOGPROBS,
    "stream_interval": Rule(
        accepts=_optional(int_in(1)),
        limit="None or an integer of at least 1",
        remedy="use 1 for an output after every token",
    ),
    "thinking_token_budget": Rule(
        accepts=_optional(int_in(-1, MAX_INT32)),
        limit="None, -1 or an integer of at least 0",
        remedy="use None for no limit",
    ),
    "logit_bias": Rule(
        accepts=_optional(_is_bias),
        limit=f"a dict from token id to a number of at most {MAX_BIAS:g}",
        remedy="pass {token_id: bias} with biases such as -100 to forbid and 5 to favour",
    ),
    "allowed_token_ids": Rule(
        accepts=_optional(_list_of(int_in(0), least=1)),
        limit="a non-empty list of token ids",
        remedy="use None to allow all tokens",
    ),
    "bad_words": Rule(
        accepts=_list_of(_is_text),
        limit="a list of non-empty strings",
        remedy="remove the empty or foreign entries",
    ),
    "logits_processors": Rule(
        accepts=_optional(_list_of(_is_processor)),
        limit="a list of functions or names",
        remedy="pass functions of (output_token_ids, logits)",
    ),
    "truncate_prompt_tokens": Rule(
        accepts=_optional(lambda value: value == -1 or int_in(1)(value)),
        limit="None, -1 or an integer of at least 1",
        remedy="use -1 to cut the prompt to what the context holds",
    ),
    "length_penalty": Rule(
        accepts=_real_in(-10.0, 10.0),
        limit="a number in [-10, 10]",
        remedy="use 1.0 for the average log-probability",
    ),
    "early_stopping": Rule(
        accepts=lambda value: _is_bool(value) or value == "never",
        limit='True, False or "never"',
        remedy="use False for the usual heuristic",
    ),
    "ignore_eos": _BOOL,
    "detokenize": _BOOL,
    "skip_special_tokens": _BOOL,
    "spaces_between_special_tokens": _BOOL,
    "include_stop_str_in_output": _BOOL,
    "use_beam_search": _BOOL,
}

# Parameter -> why not, or what to use. Delete the line of one that gets built.
NOT_BUILT: dict[str, str] = {
    "watermarking": "there is no watermark",
    "prompt_logprob_token_ids": "use prompt_logprobs, which has the most likely tokens",
    "prompt_logprob_start": "prompt_logprobs has those of all prompt tokens",
    "logprob_token_ids": "use logprobs, which has the most likely tokens",
    "flat_logprobs": "log-probabilities come as a list of dicts",
    "extra_args": "there are no plug-ins that would read it",
    "repetition_detection": "use repetition_penalty or frequency_penalty",
    "routed_experts_prompt_start": "routed experts are not reported",
    "trace_decode_token_ids": "decoding is not traced",
    "output_text_buffer_length": "text waits only as long as it may become a stop string",
}

# Parameter -> its neutral values.
WITHOUT_EFFECT_ON_BEAMS: dict[str, tuple[Any, ...]] = {
    "top_p": (1.0,),
    "top_k": (0, -1),
    "min_p": (0.0,),
    "logprobs": (None,),
    "prompt_logprobs": (None,),
}
ONLY_FOR_BEAMS: dict[str, tuple[Any, ...]] = {"early_stopping": (False,), "length_penalty": (1.0,)}
