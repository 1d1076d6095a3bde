"""From what a user wrote (`SamplingParams`) to what a row needs (`RowSampling`).

Owns the defaults that depend on the model: its stop tokens, its vocabulary, its tokenizer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import field, replace

from quire.named_processors import functions_and_names
from quire.request import RowSampling
from quire.sampling_limits import MAX_FLOAT32
from quire.sampling_params import GREEDY_BELOW, SamplingParams
from quire.whole_text import require_whole_text

MAX_BAD_WORDS = 128
MAX_BAD_WORD_BYTES = 4096  # together: they are tokenized, and compared at every step of each row
MAX_STOP_TOKEN_IDS = 1024  # every new token is looked up in them
LOWEST_TEMPERATURE = 0.01  # below, float32 probabilities lose their meaning
_ANCHORS = ("\n", "(")  # texts that few tokenizers join with the word behind them

logger = logging.getLogger(__name__)

_Ends = tuple[tuple[int, ...], tuple[int, ...]]  # end-of-sequence tokens, stop strings by ids


class SettledParams(SamplingParams):
    """Parameters shared by many prompts of one engine and not changed any more, so that what their
    rows have in common is computed once."""

    rows: dict[_Ends, RowSampling] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, params: SamplingParams) -> SamplingParams:
        """``params`` as `SettledParams`, sharing its lists and checked with the first row; an
        instance of a subclass is returned as it is."""
        if type(params) is not SamplingParams:
            return params
        settled = cls.__new__(cls)
        vars(settled).update(vars(params), rows={})
        return settled


def to_row_sampling(
    params: SamplingParams,
    *,
    eos_token_ids: Collection[int],
    vocab_size: int,
    max_logprobs: int,
    seed: int,
    token_strings: Collection[int] = (),
    tokenize: Callable[[str], list[int]] | None = None,
) -> RowSampling:
    """Check ``params`` once more, now against the model, and fill in every default.

    ``seed`` serves when the user gave none. ``token_strings`` are stop strings that are one token,
    by their ids. ``tokenize`` turns a bad word into token ids without special tokens; without it
    bad words are refused. ``max_logprobs`` is the engine's limit, -1 for none.
    """
    ends = tuple(eos_token_ids), tuple(token_strings)
    rows = params.rows if isinstance(params, SettledParams) else {}
    if ends in rows:
        return replace(rows[ends], seed=_seed(params, seed))
    rows[ends] = row = _checked_row(params, ends, vocab_size, max_logprobs, seed, tokenize)
    return row


def _checked_row(
    params: SamplingParams,
    ends: _Ends,
    vocab_size: int,
    max_logprobs: int,
    seed: int,
    tokenize: Callable[[str], list[int]] | None,
) -> RowSampling:
    params.verify()
    eos_token_ids, token_strings = ends
    ends_late = params.ignore_eos and params.is_constrained  # complete text must end
    is_eos_heeded = ends_late or not params.ignore_eos
    own_stops = dict.fromkeys([*(params.stop_token_ids or ()), *token_strings])
    _require_few_stops(len(own_stops))
    eos = eos_token_ids if is_eos_heeded else ()
    ignored_eos = () if is_eos_heeded else tuple(t for t in eos_token_ids if t not in own_stops)
    stop_token_ids = tuple(dict.fromkeys([*(params.stop_token_ids or ()), *eos, *token_strings]))
    allowed = tuple(dict.fromkeys(params.allowed_token_ids or ()))
    bias = params.logit_bias or {}
    _check_limits_of_model(params, vocab_size, max_logprobs)
    bad_words = _bad_words(params.bad_words or [], tokenize, vocab_size)
    is_held = params.min_tokens > 0 and not params.is_constrained
    _require_a_token(
        allowed or range(vocab_size),
        bad_words=bad_words,
        bias=bias,
        too_early=(*stop_token_ids, *ignored_eos) if is_held else (),
    )
    is_beam = params.use_beam_search
    functions, names = functions_and_names(params.logits_processors or ())
    draws_nothing = is_beam and params.temperature == 1.0
    return RowSampling(
        temperature=0.0 if draws_nothing else _temperature(params.temperature),
        top_k=params.top_k if 0 < params.top_k < vocab_size else 0,
        top_p=float(params.top_p),
        min_p=float(params.min_p),
        presence_penalty=float(params.presence_penalty),
        frequency_penalty=float(params.frequency_penalty),
        repetition_penalty=float(params.repetition_penalty),
        seed=_seed(params, seed),
        logit_bias=tuple((int(token), float(value)) for token, value in bias.items()),
        allowed_token_ids=allowed,
        bad_words_token_ids=bad_words,
        min_tokens=params.min_tokens,
        stop_token_ids=stop_token_ids,
        ignored_eos_ids=ignored_eos,
        ends_late=ends_late,
        num_logprobs=_num_logprobs(params, len(stop_token_ids)),
        num_prompt_logprobs=params.prompt_logprobs,
        processed_logprobs=is_beam,
        logits_processors=functions,
        named_processors=names,
    )


def _seed(params: SamplingParams, seed: int) -> int:
    return seed if params.seed is None else int(params.seed)


def num_beam_candidates(width: int, num_stop_token_ids: int) -> int:
    """How many candidate tokens beam search needs, so that enough remain if all stop tokens rank
    best.

    The same number as ``transformers`` keeps.
    """
    return max(2, 1 + num_stop_token_ids) * width


def _check_limits_of_model(params: SamplingParams, vocab_size: int, max_logprobs: int) -> None:
    _require_in_vocabulary("stop_token_ids", params.stop_token_ids or (), vocab_size)
    _require_in_vocabulary("allowed_token_ids", params.allowed_token_ids or (), vocab_size)
    _require_in_vocabulary("logit_bias", params.logit_bias or (), vocab_size)
    _require_few_logprobs("logprobs", params.logprobs, max_logprobs)
    _require_few_logprobs("prompt_logprobs", params.prompt_logprobs, max_logprobs)


def _num_logprobs(params: SamplingParams, num_stop_token_ids: int) -> int | None:
    """Beams read their candidates from the log-probabilities; ``best_of`` ranks by them."""
    if params.use_beam_search:
        return num_beam_candidates(params.num_completions, num_stop_token_ids)
    return 0 if params.is_ranked and params.logprobs is None else params.logprobs


def _temperature(temperature: float) -> float:
    if temperature < GREEDY_BELOW:
        return 0.0
    if temperature < LOWEST_TEMPERATURE:
        logger.warning(
            "temperature %s is raised to %s; use 0 for greedy", temperature, LOWEST_TEMPERATURE
        )
        return LOWEST_TEMPERATURE
    return float(temperature)


def _bad_words(
    words: list[str], tokenize: Callable[[str], list[int]] | None, vocab_size: int
) -> tuple[tuple[int, ...], ...]:
    """The token sequences of each word at the start of a text, after other text and after a
    space."""
    if not words:
        return ()
    _require_few_sequences(len(words), len(words))
    _require_few_bytes(sum(len(word.encode(errors="surrogatepass")) for word in words))
    if tokenize is None:
        raise ValueError(
            f"bad_words need a tokenizer, got {words!r} with skip_tokenizer_init; "
            "forbid single tokens by logit_bias={token_id: -100} instead."
        )
    found: dict[tuple[int, ...], None] = {}
    for place, word in enumerate(words):
        require_whole_text(f"bad_words[{place}]", word)
        for token_ids in _spellings(word, tokenize):
            found[token_ids] = None
            _require_in_vocabulary("bad_words", token_ids, vocab_size)
    _require_few_sequences(len(found), len(words))
    return tuple(found)


def _spellings(word: str, tokenize: Callable[[str], list[int]]) -> list[tuple[int, ...]]:
    """The word's tokens at the start of a text, after other text and after a space; white space
    alone gets none before it."""
    bare = word.lstrip()
    texts = (bare, " " + bare) if bare else (word,)
    spelled = dict.fromkeys(tuple(tokenize(text)) for text in texts)
    spelled[_behind_text(bare or word, tokenize)] = None
    found = [one for one in spelled if one]
    # What forbids the end of a sequence forbids all of it.
    return [
        one for one in found if not any(one != end and one[-len(end) :] == end for end in found)
    ]


def _behind_text(word: str, tokenize: Callable[[str], list[int]]) -> tuple[int, ...]:
    """The word's tokens right behind other text: many tokenizers put a space before a whole text.
    Empty if the word merges with each of `_ANCHORS`."""
    for anchor in _ANCHORS:
        head = tokenize(anchor)
        whole = tokenize(anchor + word)
        if head and whole[: len(head)] == head:
            return tuple(whole[len(head) :])
    return ()


def _require_a_token(
    allowed: Sequence[int],
    *,
    bad_words: Iterable[tuple[int, ...]],
    bias: Mapping[int, float],
    too_early: Collection[int],
) -> None:
    """ValueError if the parameters together forbid every token at the first position."""
    forbidden = {
        "bad_words": {word[0] for word in bad_words if len(word) == 1},
        "logit_bias": {token_id for token_id, value in bias.items() if value < -MAX_FLOAT32},
        "min_tokens (no stop token yet)": set(too_early),
    }
    left = set().union(*forbidden.values())
    if len(left) < len(allowed) or any(token_id not in left for token_id in allowed):
        return
    names = " or ".join(name for name, token_ids in forbidden.items() if token_ids)
    which = f"allowed_token_ids {list(allowed)}" if len(allowed) <= 8 else f"{len(allowed)} tokens"
    raise ValueError(
        f"no token can be sampled: each of {which} is forbidden by {names}; allow another "
        "token, or forbid fewer."
    )


def _require_in_vocabulary(name: str, token_ids: Iterable[int], vocab_size: int) -> None:
    for token_id in token_ids:
        if not 0 <= token_id < vocab_size:
            raise ValueError(
                f"{name} must be inside the vocabulary, 0 to {vocab_size - 1}, got {token_id}; "
                "use token ids of this model's tokenizer."
            )


def _require_few_stops(count: int) -> None:
    if count > MAX_STOP_TOKEN_IDS:
        raise ValueError(
            f"stop_token_ids may be at most {MAX_STOP_TOKEN_IDS} tokens, stop strings of one token "
            f"among them, got {count}; name fewer."
        )


def _require_few_sequences(count: int, num_words: int) -> None:
    if count > MAX_BAD_WORDS:
        raise ValueError(
            f"bad_words may be at most {MAX_BAD_WORDS} token sequences, got {count} "
            f"from {num_words} words (each counts with and without a space); use fewer words."
        )


def _require_few_bytes(count: int) -> None:
    if count > MAX_BAD_WORD_BYTES:
        raise ValueError(
            f"bad_words may have at most {MAX_BAD_WORD_BYTES} bytes together, got "
            f"{count}; use fewer or shorter words."
        )


def _require_few_logprobs(name: str, count: int | None, limit: int) -> None:
    if count is None or limit < 0 or 0 <= count <= limit:
        return
    raise ValueError(
        f"{name} must be at most max_logprobs={limit}, got {count}; ask for fewer, or start the "
        "engine with a larger max_logprobs (-1 for no limit)."
    )
