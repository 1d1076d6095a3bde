"""Prompts as token ids, ready for the engine: tokenized, cut where the request says so, checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from quire.engine.async_engine import AsyncLLM
from quire.engine.input_processor import Side, check_salt, num_kept_tokens
from quire.prompts import ParsedPrompt
from quire.sampling_params import SamplingParams
from quire.server.errors import PromptTooLong, bad_request
from quire.server.input_phase import go_on
from quire.server.protocol.common import GenerationBody

# Texts have far fewer characters per token. Of a text with more than this per token of the context
# only a part is tokenized, and more of it only until that has twice the tokens that fit.
_CHARS_PER_TOKEN = 16
_CHARS_AT_ONCE = 1 << 20  # in one batch of texts; each character takes some 150 bytes
_LEAST_COUNTED = 1 << 20  # characters or token ids allowed for counting, whatever the context
_ONLY = "the prompt"  # the name of a prompt that is not in a list


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptRules:
    """What a request says about all of its prompts."""

    kept_tokens: int | None = None  # -1: what the answer leaves of the context
    answer_tokens: int = 1
    side: Side = "left"  # the side that is cut off
    cache_salt: str | None = None
    param: str = "prompt"  # the field that errors are about

    @classmethod
    def of(cls, body: GenerationBody, params: SamplingParams, param: str) -> PromptRules:
        if body.cache_salt is not None:
            _check_salt(body.cache_salt)
        return cls(
            kept_tokens=body.truncate_prompt_tokens,
            answer_tokens=params.max_tokens or params.min_tokens or 1,
            side=body.truncation_side or "left",
            cache_salt=body.cache_salt,
            param=param,
        )


def ready_prompts(
    engine: AsyncLLM, prompts: Sequence[ParsedPrompt], rules: PromptRules
) -> list[ParsedPrompt]:
    """The prompts with token ids, in order; 400 for one that does not fit the context. A truncated
    prompt loses its text."""
    kept = kept_tokens(engine, rules)
    done = tokenized_for_context(engine, prompts, rules.side)
    fitted = [_fitted(engine, prompt, kept, rules) for prompt in done]
    for prompt in fitted:
        _check_token_ids(prompt, rules.param, engine.model_config.get_vocab_size())
    return fitted


def kept_tokens(engine: AsyncLLM, rules: PromptRules) -> int | None:
    """The most tokens of a prompt where longer ones are to be cut, else None."""
    if rules.kept_tokens is None:
        return None
    max_model_len = engine.model_config.max_model_len
    try:
        return num_kept_tokens(rules.kept_tokens, max_model_len, rules.answer_tokens)
    except ValueError as error:
        raise bad_request(f"{error}.", "truncate_prompt_tokens") from error


def tokenized_for_counting(
    engine: AsyncLLM, prompt: ParsedPrompt, param: str = "messages"
) -> ParsedPrompt:
    """The prompt with all of its token ids; 400 for one too long to be counted."""
    check_countable(engine, len(prompt.text or ""), "characters", param)
    (done,) = _tokenized(engine, [prompt])
    return done


def check_countable(
    engine: AsyncLLM, count: int, unit: str, param: str, least: int = _LEAST_COUNTED
) -> None:
    """400 if ``count`` exceeds `_CHARS_PER_TOKEN` per token of the context, and ``least``."""
    max_model_len = engine.model_config.max_model_len
    most = max(_CHARS_PER_TOKEN * max_model_len, least)
    if count > most:
        raise bad_request(
            f"{param}: {count} {unit} are more than the {most} that a request may have with a "
            f"context of {max_model_len} tokens; send them in parts.",
            param,
        )


def _tokenized(engine: AsyncLLM, prompts: Sequence[ParsedPrompt]) -> list[ParsedPrompt]:
    """The prompts with token ids, whatever their length; tokenized in batches, for speed."""
    done: list[ParsedPrompt] = []
    for part in _parts(prompts):
        go_on()
        done += engine.front.inputs.tokenize_all(part)
    return done


def _parts(prompts: Sequence[ParsedPrompt]) -> Iterator[list[ParsedPrompt]]:
    """The prompts in order, in batches of `_CHARS_AT_ONCE` characters; a longer one is alone."""
    part: list[ParsedPrompt] = []
    num_chars = 0
    for prompt in prompts:
        size = len(prompt.text or "")
        if part and num_chars + size > _CHARS_AT_ONCE:
            yield part
            part, num_chars = [], 0
        part.append(prompt)
        num_chars += size
    yield part


def tokenized_for_context(
    engine: AsyncLLM, prompts: Sequence[ParsedPrompt], cut_side: Side
) -> list[ParsedPrompt]:
    """The prompts with token ids. Of a prompt with more than twice the tokens that fit there may be
    only those that remain after cutting ``cut_side``: megabytes that cannot fit cost no time."""
    max_model_len = engine.model_config.max_model_len
    most_chars = _CHARS_PER_TOKEN * max_model_len
    done = [
        _of_part(engine, prompt, cut_side, most_chars)
        if prompt.token_ids is None and len(prompt.text or "") > most_chars
        else prompt
        for prompt in prompts
    ]
    return _tokenized(engine, done)


def _of_part(engine: AsyncLLM, prompt: ParsedPrompt, cut_side: Side, size: int) -> ParsedPrompt:
    """Tokenize the part at the kept end; the kept tokens are far from its cut, hence unchanged."""
    text = prompt.text or ""
    while True:
        part = text[-size:] if cut_side == "left" else text[:size]
        (done,) = _tokenized(engine, [replace(prompt, text=part)])
        is_whole = len(part) == len(text)
        if is_whole or len(done.token_ids or ()) > 2 * engine.model_config.max_model_len:
            return replace(done, text=text)
        size *= 2


def too_long(
    num_tokens: int,
    max_model_len: int,
    param: str,
    name: str = _ONLY,
    *,
    may_have_more: bool = False,
) -> PromptTooLong:
    """The error for a prompt of ``num_tokens`` tokens."""
    # Conversations may come from other APIs, which truncate in their own ways.
    remedy = ", or set truncate_prompt_tokens" if param == "prompt" else ""
    at_least = "at least " if may_have_more or num_tokens > 2 * max_model_len else ""
    return PromptTooLong(
        f"This model's maximum context length is {max_model_len} tokens. However, the prompt is "
        f"too long: {'it' if name == _ONLY else name} has {at_least}{num_tokens} tokens, and at "
        f"least one must be left for the answer; shorten it{remedy}.",
        param,
        num_tokens=num_tokens,
        most_tokens=max_model_len - 1,
    )


def _fitted(
    engine: AsyncLLM, prompt: ParsedPrompt, kept: int | None, rules: PromptRules
) -> ParsedPrompt:
    token_ids = prompt.token_ids or []
    if not token_ids:
        raise bad_request(
            f"{prompt.name} is empty: it has no tokens; pass some text or at least one token id.",
            rules.param,
        )
    text = prompt.text
    if kept is not None and kept < len(token_ids):
        token_ids, text = engine.front.inputs.truncated(prompt, kept, rules.side), None
    max_model_len = engine.model_config.max_model_len
    if len(token_ids) >= max_model_len:
        raise too_long(len(token_ids), max_model_len, rules.param, prompt.name)
    return replace(prompt, text=text, token_ids=token_ids, cache_salt=rules.cache_salt)


def _check_token_ids(prompt: ParsedPrompt, param: str, size: int) -> None:
    """400 for an id outside the vocabulary. The engine would refuse it too, but could name neither
    the prompt nor the field."""
    token_ids = prompt.token_ids or []
    if max(token_ids) >= size:
        wrong = next(one for one in token_ids if one >= size)
        raise bad_request(
            f"{prompt.name} has token id {wrong}, which is outside the vocabulary, 0 to "
            f"{size - 1}; use token ids of this model's tokenizer.",
            param,
        )


def _check_salt(salt: str) -> None:
    try:
        check_salt(salt)
    except ValueError as error:
        raise bad_request(f"{error}.", "cache_salt") from error
