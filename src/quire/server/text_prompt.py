"""The prompts of a completions request: text or token ids, one or many, and gaps to be filled.

A suffix makes the prompt a gap between two texts, for tokenizers with fill-in-the-middle tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from quire.engine.async_engine import AsyncLLM
from quire.prompts import ParsedPrompt, parse_prompts, plain_ids
from quire.server.errors import bad_request
from quire.server.prompt_tokens import (
    PromptRules,
    kept_tokens,
    tokenized_for_context,
    too_long,
)
from quire.server.protocol.completions import CompletionRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_PROMPTS = 1024


@dataclass(frozen=True, slots=True)
class GapTokens:
    """The special tokens before the prefix, before the suffix, and before what fills the gap."""

    prefix: str
    suffix: str
    middle: str


GAP_TOKENS = (
    GapTokens("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen-Coder, Codegemma
    GapTokens("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder
    GapTokens("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    GapTokens("▁<PRE>", "▁<SUF>", "▁<MID>"),  # Code Llama
    GapTokens("<PRE>", "<SUF>", "<MID>"),
    GapTokens("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
)


def completion_prompts(
    engine: AsyncLLM, body: CompletionRequest, rules: PromptRules
) -> list[ParsedPrompt]:
    """The prompts in order; their texts may still have to be tokenized."""
    if body.truncate_prompt_tokens is None:
        _refuse_too_many_ids(body.prompt, engine.model_config.max_model_len)
    prompts = _parsed(body.prompt)
    special = True if body.add_special_tokens is None else body.add_special_tokens
    prompts = [replace(prompt, add_special_tokens=special) for prompt in prompts]
    if not body.suffix:
        _refuse_empty(prompts)
        return prompts
    if body.echo:
        raise bad_request("echo and suffix cannot be used together; leave one out.", "suffix")
    prompts = _with_gaps(engine, prompts, body.suffix)
    _refuse_cuts(prompts, kept_tokens(engine, rules))
    return prompts


def _parsed(given: Any) -> list[ParsedPrompt]:
    try:
        if isinstance(given, list) and (ids := plain_ids(given)) is not None:
            return [ParsedPrompt(token_ids=ids)]
        _check_form(given)
        return parse_prompts(given)
    except ValueError as error:
        raise bad_request(str(error), "prompt") from error


def _check_form(given: Any) -> None:
    """400 for a prompt of a wrong form; it is not a plain list of token ids."""
    forms = f"a string, a list of token ids, or a list of up to {MAX_PROMPTS} of either"
    if not isinstance(given, (str, list)):
        raise bad_request(f"prompt must be {forms}, got {type(given).__name__}.", "prompt")
    if given == []:
        raise bad_request(f"prompt is an empty list; pass {forms}.", "prompt")
    if isinstance(given, str):
        return
    is_number = [not isinstance(one, (str, list)) for one in given]
    odd = next((one for one in given if type(one) is not int), None)
    if any(is_number) and odd is not None:
        raise bad_request(
            f"prompt is a list that contains a {type(odd).__name__}; pass {forms}.", "prompt"
        )
    if len({type(one) for one in given}) > 1:
        raise bad_request(f"prompt is a list of both texts and token ids; pass {forms}.", "prompt")
    if len(given) > MAX_PROMPTS:
        raise bad_request(
            f"prompt is a list of {len(given)} prompts, but a request may have {MAX_PROMPTS}; "
            "send several requests.",
            "prompt",
        )


def _refuse_too_many_ids(given: Any, max_model_len: int) -> None:
    """400 for more ids than the context has, before they are checked one by one."""
    has_ids = isinstance(given, list) and given and isinstance(given[0], int)
    if has_ids and len(given) >= max_model_len:
        raise too_long(len(given), max_model_len, "prompt")


def _refuse_empty(prompts: Sequence[ParsedPrompt]) -> None:
    for prompt in prompts:
        if prompt.token_ids is None and not prompt.text:
            raise bad_request(
                f"{prompt.name} is empty; pass some text or at least one token id.", "prompt"
            )


def _with_gaps(
    engine: AsyncLLM, prompts: Sequence[ParsedPrompt], suffix: str
) -> list[ParsedPrompt]:
    """The prompts as token ids: in text, the special tokens could merge with their neighbours."""
    marks = _gap_token_ids(engine.front.require_tokenizer())
    if any(prompt.text is None for prompt in prompts):
        raise bad_request("suffix goes with prompts that are text, not token ids.", "suffix")
    heads = [ParsedPrompt(text="", add_special_tokens=p.add_special_tokens) for p in prompts[:1]]
    texts = [replace(prompt, add_special_tokens=False) for prompt in prompts]
    tail = ParsedPrompt(text=suffix, add_special_tokens=False)
    head, after, *befores = tokenized_for_context(engine, [*heads, tail, *texts], "left")
    return [
        replace(
            prompt,
            token_ids=[
                *(head.token_ids or ()),
                marks[0],
                *(before.token_ids or ()),
                marks[1],
                *(after.token_ids or ()),
                marks[2],
            ],
        )
        for prompt, before in zip(prompts, befores, strict=True)
    ]


def _refuse_cuts(prompts: Sequence[ParsedPrompt], kept: int | None) -> None:
    """400 for a gap longer than ``kept``: without its marks it would be none."""
    for prompt in prompts:
        count = len(prompt.token_ids or ())
        if kept is not None and count > kept:
            raise bad_request(
                f"truncate_prompt_tokens keeps {kept} tokens, but {prompt.name} has {count} with "
                "its suffix, and such a prompt cannot be cut; shorten prompt or suffix, or leave "
                "truncate_prompt_tokens out.",
                "truncate_prompt_tokens",
            )


def _gap_token_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int, int]:
    for tokens in GAP_TOKENS:
        spelled = [tokens.prefix, tokens.suffix, tokens.middle]
        ids: Any = tokenizer.convert_tokens_to_ids(spelled)
        if None not in ids and tokenizer.convert_ids_to_tokens(ids) == spelled:
            return ids[0], ids[1], ids[2]
    raise bad_request(
        "suffix needs a model with fill-in-the-middle tokens, which this one does not have; leave "
        "it out.",
        "suffix",
    )
