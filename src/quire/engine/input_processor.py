"""Turns a prompt and its parameters into a request that the engine core can run.

Owns tokenizing, the limits of the context and of the vocabulary, and what ends a completion.
Every wrong input is one ``ValueError`` here, before anything runs.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from quire.config import ModelConfig
from quire.engine.client import CLOSED
from quire.errors import EngineDeadError
from quire.prompts import ParsedPrompt
from quire.request import EngineRequest, RowSampling, Watch
from quire.row_sampling import to_row_sampling
from quire.sampling_limits import int_in
from quire.sampling_params import BeamSearchParams, RequestOutputKind, SamplingParams
from quire.structured import GrammarSpec, Thinking
from quire.structured_outputs.token_table import token_table
from quire.structured_outputs.verify import GrammarVerifier, VerifierClosed
from quire.tokenizer.vocabulary import Vocabulary
from quire.whole_text import require_whole_text

logger = logging.getLogger(__name__)

_MAX_SALT = 128
_NOT_IN_SALT = "@/\\\0"  # as in vLLM: a salt should be good for both

Side = Literal["left", "right"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StopSpec:
    """What ends a completion, beside its length, and how that looks in the output."""

    strings: tuple[str, ...] = ()
    end_strings: frozenset[str] = frozenset()  # those of them that are like an end-of-sequence
    token_strings: dict[int, str] = field(default_factory=dict)  # stop strings that are one token
    token_ids: frozenset[int] = frozenset()  # all that the engine core stops at
    eos_token_ids: frozenset[int] = frozenset()  # those of them that give no stop reason
    include_in_output: bool = False
    min_tokens: int = 0  # in the text of these first tokens no stop string may end


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessedRequest:
    """A request for the core, and what the way back to the user needs."""

    engine: EngineRequest
    prompt_text: str | None  # as the user wrote it; None when there were only token ids
    params: SamplingParams
    stop: StopSpec


class InputProcessor:
    """Tokenizes prompts, and checks them with their parameters.

    Without a tokenizer prompts must be token ids, and there are no stop strings. Requests without a
    seed draw one from ``seeds``. ``has_tokens_of_core`` tells whether token ids mean the same in
    the core; only grammars and thinking budgets need that, so it is called only for those.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: Vocabulary | None,
        eos_token_ids: Collection[int],
        seeds: random.Random | None = None,
        has_tokens_of_core: Callable[[], bool] = lambda: True,
    ) -> None:
        self._config = config
        self._vocabulary = vocabulary
        self._eos_token_ids = _possible(eos_token_ids, config.vocab_size)
        own_eos = None if vocabulary is None else vocabulary.tokenizer.eos_token_id
        self._own_eos = () if own_eos is None else (int(own_eos),)
        self._verifier = _verifier(config, vocabulary, self._eos_token_ids)
        self._seeds = seeds or random.Random(config.seed)
        self._has_tokens_of_core = has_tokens_of_core

    def tokenize_all(self, prompts: Sequence[ParsedPrompt]) -> list[ParsedPrompt]:
        """The prompts with token ids, in order; texts are tokenized together, which is faster."""
        done = list(prompts)
        for special in (True, False):
            chosen = [
                i
                for i, prompt in enumerate(prompts)
                if prompt.token_ids is None and prompt.add_special_tokens is special
            ]
            tokenized = self._tokenize([prompts[i] for i in chosen], special)
            for i, token_ids in zip(chosen, tokenized, strict=True):
                done[i] = replace(prompts[i], token_ids=token_ids)
        return done

    def process(
        self,
        request_id: str,
        prompt: ParsedPrompt,
        params: SamplingParams | BeamSearchParams,
        *,
        serial: int = 0,
        arrival_time: float | None = None,
        priority: int = 0,
    ) -> ProcessedRequest:
        """Make a request, or raise ``ValueError`` for wrong input; ``arrival_time`` defaults to
        now."""
        if not isinstance(request_id, str):
            raise ValueError(f"request_id must be a string, got {request_id!r}; use str() of it")
        if not int_in(-(2**63), 2**63 - 1)(priority):
            raise ValueError(
                f"priority must be an integer of 64 bits, got {priority!r}; smaller is sooner"
            )
        params = params.to_sampling_params() if isinstance(params, BeamSearchParams) else params
        if prompt.token_ids is None:
            (prompt,) = self.tokenize_all([prompt])
        if prompt.cache_salt is not None:
            check_salt(prompt.cache_salt)
        token_ids = self._checked_token_ids(prompt, params)
        sampling, stop = self._sampling(params, prompt.ends)
        grammar = params.grammar
        if grammar is not None:
            self.verify(grammar)
        thinking = _thinking(params, prompt.thinking, has_grammar=grammar is not None)
        if thinking is not None:
            self._check_tokens("thinking_token_budget")
        engine = EngineRequest(
            request_id=request_id,
            serial=serial,
            prompt_token_ids=token_ids,
            sampling=sampling,
            max_tokens=self._max_tokens(len(token_ids), params),
            n=params.num_completions,
            beam=params.beam,
            arrival_time=time.time() if arrival_time is None else float(arrival_time),
            priority=int(priority),
            watch=_watch(stop, params),
            cache_salt=prompt.cache_salt,
            grammar=grammar,
            thinking=thinking,
            use_prefix_cache=not params.skip_reading_prefix_cache,
        )
        return ProcessedRequest(engine=engine, prompt_text=prompt.text, params=params, stop=stop)

    def truncated(self, prompt: ParsedPrompt, kept: int, side: Side = "left") -> list[int]:
        """``kept`` of the prompt's tokens, cut off on ``side``. Special tokens that the tokenizer
        put around a text stay, if there is room for more than them."""
        token_ids = prompt.token_ids or []
        if len(token_ids) <= kept:
            return token_ids
        num_first, num_last = self._num_added(prompt)
        if num_first + num_last >= kept:
            num_first = num_last = 0
        inner = token_ids[num_first : len(token_ids) - num_last]
        room = kept - num_first - num_last
        return [
            *token_ids[:num_first],
            *(inner[-room:] if side == "left" else inner[:room]),
            *token_ids[len(token_ids) - num_last :],
        ]

    def verify(self, grammar: GrammarSpec) -> None:
        """``ValueError`` for a grammar that cannot be followed; checking a new one takes a
        while."""
        self._check_vocabulary()
        with _told_of_the_end():
            self._verifier.verify(grammar)

    def close(self) -> None:
        """End the grammar verifier and its processes."""
        self._verifier.close()

    async def verify_beside(self, grammar: GrammarSpec) -> None:
        """`verify` without blocking the event loop; `TooManyGrammars` if too many grammars wait
        already."""
        self._check_vocabulary()
        with _told_of_the_end():
            await self._verifier.verify_beside(grammar)

    def _check_vocabulary(self) -> None:
        if self._vocabulary is None:
            raise ValueError(
                "structured_outputs need a tokenizer, and the engine runs with "
                "skip_tokenizer_init=True; leave one of them out"
            )
        self._check_tokens("structured_outputs")

    def _check_tokens(self, name: str) -> None:
        if not self._has_tokens_of_core():
            raise ValueError(
                f"{name} cannot be used: the tokenizer was replaced by one with other tokens, "
                "which the engine core does not know; make an engine with that "
                f"tokenizer (tokenizer=...), or leave {name} out"
            )

    def _tokenize(self, prompts: list[ParsedPrompt], add_special_tokens: bool) -> list[list[int]]:
        if not prompts:
            return []
        if self._vocabulary is None:
            raise ValueError(
                "a prompt is text, but the engine runs with skip_tokenizer_init=True; pass "
                "prompt_token_ids"
            )
        try:
            encoded = self._vocabulary.tokenizer(
                [prompt.text or "" for prompt in prompts],
                add_special_tokens=add_special_tokens,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,  # its own advice about long texts; the limit is checked here
            )
        except Exception as error:  # whose text does not mention lone surrogates
            for prompt in prompts:
                require_whole_text(prompt.name, prompt.text or "")
            if not _is_unspellable(error):
                raise
            if len(prompts) > 1:  # one by one, to name the wrong one
                return [self._tokenize([prompt], add_special_tokens)[0] for prompt in prompts]
            raise ValueError(
                f"{prompts[0].name} cannot be tokenized by this model ({error}); use "
                "only text that its vocabulary covers"
            ) from error
        return [list(token_ids) for token_ids in encoded["input_ids"]]

    def _checked_token_ids(self, prompt: ParsedPrompt, params: SamplingParams) -> list[int]:
        token_ids = prompt.token_ids or []
        kept = params.truncate_prompt_tokens
        if kept is not None:
            answer = params.max_tokens or params.min_tokens
            kept = num_kept_tokens(kept, self._config.max_model_len, answer)
            token_ids = self.truncated(prompt, kept)
        if not token_ids:
            raise ValueError(
                f"{prompt.name} is empty: it has no tokens; pass some text or at least one token id"
            )
        limit = self._config.vocab_size
        if max(token_ids) >= limit:
            wrong = next(i for i in token_ids if i >= limit)
            raise ValueError(
                f"{prompt.name} has token id {wrong}, which is outside the vocabulary, 0 to "
                f"{limit - 1}; use token ids of this model's tokenizer"
            )
        if len(token_ids) >= self._config.max_model_len:
            # Without one from the user it is the model's own, or all that the memory holds.
            is_chosen = self._config.max_model_len_source == "user"
            larger = ", or start the engine with a larger max_model_len" if is_chosen else ""
            raise ValueError(
                f"{prompt.name} has {len(token_ids)} tokens, but max_model_len is "
                f"{self._config.max_model_len} tokens for prompt and output together; shorten the "
                f"prompt or set truncate_prompt_tokens{larger}"
            )
        return token_ids

    def _num_added(self, prompt: ParsedPrompt) -> tuple[int, int]:
        """How many special tokens the tokenizer put before and behind the prompt's text."""
        token_ids = prompt.token_ids or []
        is_text = prompt.text is not None and self._vocabulary is not None
        if not is_text or not prompt.add_special_tokens:
            return 0, 0
        (added,) = self._tokenize([ParsedPrompt(text="")], True)
        for num_first in range(len(added), -1, -1):
            num_last = len(added) - num_first
            is_there = token_ids[:num_first] == added[:num_first]
            if is_there and token_ids[len(token_ids) - num_last :] == added[num_first:]:
                return num_first, num_last
        return 0, 0  # token ids that were given, with a text to be passed on

    def _max_tokens(self, num_prompt_tokens: int, params: SamplingParams) -> int:
        rest = self._config.max_model_len - num_prompt_tokens
        return rest if params.max_tokens is None else min(params.max_tokens, rest)

    def _sampling(
        self, params: SamplingParams, ends: tuple[str, ...]
    ) -> tuple[RowSampling, StopSpec]:
        strings = self._stop_strings(params)
        token_strings = self._special_tokens(strings)
        if params.use_beam_search:
            _require_tokens(strings, token_strings)
        # The end of a turn in a chat format counts as the tokenizer's end-of-sequence token. Other
        # ends, of the generation config, tell kinds of ends apart, so they give a stop reason.
        ends = tuple(end for end in ends if end not in strings)
        end_tokens = self._special_tokens(ends)
        heeded = () if params.ignore_eos else ends
        end_strings = tuple(end for end in heeded if end not in end_tokens.values())
        sampling = to_row_sampling(
            params,
            eos_token_ids=tuple(dict.fromkeys([*self._eos_token_ids, *end_tokens])),
            token_strings=token_strings,
            vocab_size=self._config.vocab_size,
            max_logprobs=self._config.max_logprobs,
            seed=self._seeds.getrandbits(62),
            tokenize=None if self._vocabulary is None else self._tokenize_word,
        )
        has_eos = not params.ignore_eos or sampling.ends_late
        stop = StopSpec(
            strings=strings + end_strings,
            end_strings=frozenset(end_strings),
            token_strings=token_strings,
            token_ids=frozenset(sampling.stop_token_ids),
            eos_token_ids=frozenset([*self._own_eos, *end_tokens] if has_eos else ()),
            include_in_output=params.include_stop_str_in_output,
            min_tokens=params.min_tokens,
        )
        return sampling, stop

    def _stop_strings(self, params: SamplingParams) -> tuple[str, ...]:
        stop = params.stop or []
        strings = (stop,) if isinstance(stop, str) else tuple(stop)
        if strings and self._vocabulary is None:
            raise ValueError(
                f"stop strings need a tokenizer, got {list(strings)!r} with "
                "skip_tokenizer_init=True; use stop_token_ids"
            )
        for place, text in enumerate(strings):
            require_whole_text(f"stop[{place}]" if len(strings) > 1 else "stop", text)
        return strings

    def _special_tokens(self, strings: tuple[str, ...]) -> dict[int, str]:
        """Stop strings that are one special token, which the text usually does not show."""
        if self._vocabulary is None:
            return {}
        ids = {text: self._vocabulary.special_token_id(text) for text in strings}
        limit = self._config.vocab_size
        return {i: text for text, i in ids.items() if i is not None and i < limit}

    def _tokenize_word(self, text: str) -> list[int]:
        assert self._vocabulary is not None
        try:
            return list(self._vocabulary.tokenizer.encode(text, add_special_tokens=False))
        except Exception as error:
            if _is_unspellable(error):
                return []  # the model cannot write it either
            raise


def num_kept_tokens(asked: int, max_model_len: int, num_answer_tokens: int) -> int:
    """The most prompt tokens for ``truncate_prompt_tokens=asked``; ``ValueError`` if impossible.
    -1 leaves the answer its ``num_answer_tokens``; one if that would be the whole context, which is
    as good as no limit."""
    if asked == -1:
        is_limit = 0 < num_answer_tokens < max_model_len
        return max_model_len - (num_answer_tokens if is_limit else 1)
    if not 1 <= asked <= max_model_len:
        raise ValueError(
            f"truncate_prompt_tokens must be -1 or from 1 to {max_model_len}, the length of the "
            f"context, got {asked}; use -1 for as many as leave room for the answer"
        )
    return asked


def check_salt(salt: str) -> None:
    """``ValueError`` for a cache salt that is no plain name."""
    if not 1 <= len(salt) <= _MAX_SALT or any(letter in salt for letter in _NOT_IN_SALT):
        raise ValueError(
            f"cache_salt must have 1 to {_MAX_SALT} characters, none of them '@', '/', '\\' or "
            f"NUL, got {salt[:40]!r}; use a random name or a hash in hexadecimal digits"
        )


def _is_unspellable(error: Exception) -> bool:
    """Whether a tokenizer without an unknown token says that it has no tokens for some text;
    `tokenizers` raises a plain `Exception` for that."""
    return type(error) is Exception


def _verifier(
    config: ModelConfig, vocabulary: Vocabulary | None, eos_token_ids: Collection[int]
) -> GrammarVerifier:
    if vocabulary is None:
        return GrammarVerifier()
    return GrammarVerifier(
        partial(token_table, vocabulary.tokenizer, config.vocab_size, eos_token_ids)
    )


def _possible(eos_token_ids: Collection[int], vocab_size: int) -> tuple[int, ...]:
    """The end tokens that are inside the vocabulary; some models name others too."""
    found = tuple(i for i in eos_token_ids if 0 <= i < vocab_size)
    if len(found) < len(eos_token_ids):
        logger.warning(
            "of the end-of-sequence tokens %s only those inside the vocabulary, 0 to %d, count",
            list(eos_token_ids),
            vocab_size - 1,
        )
    return found


@contextlib.contextmanager
def _told_of_the_end() -> Iterator[None]:
    """Turn `VerifierClosed` into the error that other requests get after the engine's end."""
    try:
        yield
    except VerifierClosed:
        raise EngineDeadError(CLOSED) from None


def _require_tokens(strings: Collection[str], token_strings: Mapping[int, str]) -> None:
    """Raise ``ValueError`` for stop strings that are not one token: beams are compared by their
    tokens, and several that are cut at a text would be the same."""
    texts = [text for text in strings if text not in token_strings.values()]
    if texts:
        raise ValueError(
            "in beam search each stop string must be one special token of the tokenizer, got "
            f"stop={texts!r}; use stop_token_ids, or cut the texts of the output"
        )


def _watch(stop: StopSpec, params: SamplingParams) -> Watch:
    """How often the core reports tokens: every step, now and then, or only at the end.

    Every step for streams, now and then if the front end must look for stop strings. Those that are
    special tokens stop in the core; the same string as plain text is so rare that it is cut off
    later.
    """
    found_by_core = len(stop.token_strings) == len(set(stop.strings))
    reads_end_only = params.output_kind is RequestOutputKind.FINAL_ONLY or params.is_ranked
    if not reads_end_only:
        return Watch.EVERY_STEP
    return Watch.AT_END if found_by_core else Watch.NOW_AND_THEN


def _thinking(
    params: SamplingParams, thinking: Thinking | None, *, has_grammar: bool
) -> Thinking | None:
    """What the core must know of the thinking, for a grammar or a budget; None if neither needs
    it."""
    budget = params.thinking_token_budget
    if budget is None and thinking is not None:
        budget = thinking.budget
    budget = None if budget == -1 else budget
    if thinking is None and budget is not None:
        raise ValueError(
            f"thinking_token_budget={budget} needs to know how thinking ends, and no reasoning "
            "parser says so; name one, as LLM(reasoning_parser=...) or with `quire serve "
            "--reasoning-parser`, or leave thinking_token_budget out"
        )
    if thinking is None or thinking.is_open is False or (budget is None and not has_grammar):
        return None
    return replace(thinking, budget=budget)
