"""Prompts as token ids, ready for the engine: tokenized, cut where the request says so, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from quire.engine.async_engine import AsyncLLM
from quire.prompts import ParsedPrompt
from quire.server.errors import HTTPError, bad_request
from quire.server.protocol.common import GenerationBody

_MAX_SALT = 128
_NOT_IN_SALT = "@/\\\0"


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptRules:
    """What a request says about all of its prompts."""

    kept_tokens: int | None = None  # -1: as many as leave room for one more
    side: Literal["left", "right"] = "left"  # what is cut off
    cache_salt: str | None = None
    param: str = "prompt"  # the field that errors are about

    @classmethod
    def of(cls, body: GenerationBody, param: str) -> PromptRules:
        if body.cache_salt is not None:
            _check_salt(body.cache_salt)
        return cls(
            kept_tokens=body.truncate_prompt_tokens,
            side=body.truncation_side or "left",
            cache_salt=body.cache_salt,
            param=param,
        )


def ready_prompts(
    engine: AsyncLLM, prompts: Sequence[ParsedPrompt], rules: PromptRules
) -> list[ParsedPrompt]:
    """The prompts with token ids that fit the context, in order; 400 for one that does not."""
    max_model_len = engine.model_config.max_model_len
    kept = _kept_tokens(rules.kept_tokens, max_model_len)
    done = tokenized(engine, prompts)
    return [_fitted(prompt, kept, rules, max_model_len) for prompt in done]


def tokenized(engine: AsyncLLM, prompts: Sequence[ParsedPrompt]) -> list[ParsedPrompt]:
    """The prompts with token ids, whatever their length."""
    return engine.front.inputs.tokenize_all(prompts)


def too_long(num_tokens: int, max_model_len: int, param: str, name: str) -> HTTPError:
    """Clients search for the first sentence."""
    return bad_request(
        f"This model's maximum context length is {max_model_len} tokens. However, {name} has "
        f"{num_tokens} tokens, and at least one must be left for the answer; shorten it, or set "
        "truncate_prompt_tokens.",
        param,
    )


def _fitted(
    prompt: ParsedPrompt, kept: int | None, rules: PromptRules, max_model_len: int
) -> ParsedPrompt:
    token_ids = prompt.token_ids or []
    if not token_ids:
        raise bad_request(
            f"{prompt.name} is empty: it has no tokens; pass some text or at least one token id.",
            rules.param,
        )
    if kept is not None and kept < len(token_ids):
        token_ids = token_ids[-kept:] if rules.side == "left" else token_ids[:kept]
    if len(token_ids) >= max_model_len:
        raise too_long(len(token_ids), max_model_len, rules.param, prompt.name)
    return replace(prompt, token_ids=token_ids, cache_salt=rules.cache_salt)


def _kept_tokens(kept: int | None, max_model_len: int) -> int | None:
    if kept is None:
        return None
    if kept == -1:
        return max_model_len - 1
    if not 1 <= kept <= max_model_len:
        raise bad_request(
            f"truncate_prompt_tokens must be -1 or from 1 to {max_model_len}, the length of the "
            f"context, got {kept}.",
            "truncate_prompt_tokens",
        )
    return kept


def _check_salt(salt: str) -> None:
    if not 1 <= len(salt) <= _MAX_SALT or any(letter in salt for letter in _NOT_IN_SALT):
        raise bad_request(
            f"cache_salt must have 1 to {_MAX_SALT} characters, none of them '@', '/', '\\' or "
            f"NUL, got {salt[:40]!r}.",
            "cache_salt",
        )
