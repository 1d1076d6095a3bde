"""Prompts as callers write them, parsed into one shape: text, or token ids, or both.

Knows nothing about tokenizers, so it cannot say whether a token id is in the vocabulary.
Imports no torch: arrays are recognised by their methods.
"""

from __future__ import annotations

import operator
from collections import UserString
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypedDict, TypeGuard

import msgspec

from quire.shown import shown
from quire.structured import Thinking


class PromptOptions(TypedDict, total=False):
    """What a prompt dict may carry beside the prompt."""

    cache_salt: str
    multi_modal_data: Any  # must be absent or empty for now, as the two below
    multi_modal_uuids: Any
    mm_processor_kwargs: Any


class TextPrompt(PromptOptions):
    """A prompt as text."""

    prompt: str


class _TokenIds(PromptOptions):
    prompt_token_ids: list[int]


class TokensPrompt(_TokenIds, total=False):
    """A prompt as token ids; its text, if given, is only passed on."""

    prompt: str


_TEXTS = (str, UserString, bytes, bytearray, memoryview)  # sequences, of characters or bytes
_PlainIds = list[Annotated[int, msgspec.Meta(ge=0)]]
PromptType = str | list[int] | TextPrompt | TokensPrompt


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedPrompt:
    """One prompt. At least one of ``text`` and ``token_ids`` is set; token ids, from 0 on, win."""

    text: str | None = None
    token_ids: list[int] | None = None
    cache_salt: str | None = None
    add_special_tokens: bool = True  # to the text; False where a chat template has written them
    ends: tuple[str, ...] = ()  # texts that end an answer in the chat format this is written in
    thinking: Thinking | None = None  # the thought that may precede the answer, if known
    name: str = field(default="the prompt", compare=False)  # in messages about it


_FORMS = (
    "a string, a list of token ids, {'prompt': str}, {'prompt_token_ids': [int, ...]}, "
    "or a list of these"
)
_NOT_BUILT_YET = {
    "multi_modal_data": "multi-modal prompts",
    "multi_modal_uuids": "multi-modal prompts",
    "mm_processor_kwargs": "multi-modal prompts",
    "media_io_kwargs": "multi-modal prompts",
    "prompt_embeds": "embedding prompts",
    "encoder_prompt": "encoder-decoder prompts",
    "decoder_prompt": "encoder-decoder prompts",
    "token_type_ids": "token type ids",
    "prompt_token_offsets": "prompt token offsets",
}
_KNOWN_KEYS = {"prompt", "prompt_token_ids", "cache_salt"}


def parse_prompts(
    prompts: PromptType | Sequence[PromptType] | None,
    prompt_token_ids: Sequence[Any] | None = None,
) -> list[ParsedPrompt]:
    """All prompts of one call, in order. An empty list of prompts is no prompts.

    ``prompt_token_ids`` is the older way to give token ids: one prompt or a list of them, beside
    ``prompts`` of the same number, which then are only passed on.
    """
    if prompt_token_ids is None:
        if prompts is None:
            raise ValueError(f"no prompts were given; pass {_FORMS}")
        return _parse_all(prompts, "prompts")
    parsed = _parse_all(prompt_token_ids, "prompt_token_ids")
    if any(prompt.token_ids is None for prompt in parsed):
        raise ValueError("prompt_token_ids must be a list of token ids, or a list of such lists")
    if prompts is None:
        return parsed
    texts = _parse_all(prompts, "prompts")
    if len(texts) != len(parsed):
        raise ValueError(
            f"{len(texts)} prompts and {len(parsed)} prompt_token_ids were given; "
            "their numbers must be equal, or pass only one of them"
        )
    return [
        replace(ids, text=text.text, cache_salt=text.cache_salt)
        for text, ids in zip(texts, parsed, strict=True)
    ]


def parse_prompt(prompt: PromptType | Any) -> ParsedPrompt:
    """One prompt, in any of the forms a caller may write."""
    if isinstance(prompt, str):
        return ParsedPrompt(text=prompt)
    if isinstance(prompt, Mapping):
        return _parse_mapping(prompt)
    if is_list(prompt) and prompt and isinstance(prompt[0], str):
        raise ValueError(
            f"token ids must be ints, not {_describe(prompt[0])}; this is a list of texts inside a "
            "list of prompts: flatten it, so that each text is a prompt of its own"
        )
    if _is_array(prompt) or is_list(prompt):
        return ParsedPrompt(token_ids=_token_ids(prompt))
    raise ValueError(f"a prompt cannot be {_describe(prompt)}; pass {_FORMS}")


def is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    """Whether ``value`` is a list or another sequence, such as a data set's column; not a text."""
    return isinstance(value, (list, tuple)) or (
        isinstance(value, Sequence) and not isinstance(value, _TEXTS)
    )


def listed(value: Any) -> Any:
    """An array, or a column of a table, as a list; anything else as it is."""
    if not _is_array(value):
        return value
    return value.tolist() if value.ndim == 1 else list(value)


def plain_ids(values: Sequence[Any]) -> list[int] | None:
    """A copy of ``values`` if all are plain ints from 0 on, else (or if empty) None; in C, since
    prompts may be long."""
    try:
        return msgspec.convert(values, _PlainIds) or None
    except msgspec.ValidationError:
        return None


def name_in_list(list_name: str, index: int, length: int) -> str:
    """The name of a call's prompt in messages."""
    return f"{list_name}[{index}]" if length > 1 else "the prompt"


def _parse_all(prompts: Any, list_name: str) -> list[ParsedPrompt]:
    prompts = listed(prompts)
    if is_list(prompts):
        prompts = list(prompts)
        if (ids := plain_ids(prompts)) is not None:
            return [ParsedPrompt(token_ids=ids)]
    parsed = []
    split = _split(prompts, list_name)
    for i, prompt in enumerate(split):
        name = name_in_list(list_name, i, len(split))
        try:
            parsed.append(replace(parse_prompt(prompt), name=name))
        except ValueError as error:
            raise ValueError(f"{name}: {error}" if len(split) > 1 else str(error)) from None
    return parsed


def _split(prompts: Any, list_name: str) -> Sequence[Any]:
    """A call's prompts as a list, where the caller may have given one prompt."""
    if isinstance(prompts, (str, Mapping)):
        return [prompts]
    if not is_list(prompts):
        raise ValueError(f"{list_name} cannot be {_describe(prompts)}; pass {_FORMS}")
    numbers = [p for p in prompts if not _is_prompt(p)]
    if not numbers:
        return prompts
    if len(numbers) == len(prompts):
        return [prompts]
    raise ValueError(
        f"the list of prompts mixes prompts with {_describe(numbers[0])}; pass {_FORMS}"
    )


def _is_prompt(value: Any) -> bool:
    return isinstance(value, (str, Mapping)) or _is_array(value) or is_list(value)


def _parse_mapping(prompt: Mapping[str, Any]) -> ParsedPrompt:
    for key, value in prompt.items():
        if key in _KNOWN_KEYS:
            continue
        if key not in _NOT_BUILT_YET:
            raise ValueError(
                f"a prompt has no key {key!r}; the keys are {', '.join(sorted(_KNOWN_KEYS))}"
            )
        if _is_set(value):
            raise ValueError(f"{_NOT_BUILT_YET[key]} are not supported yet; remove the key {key!r}")
    text, token_ids = prompt.get("prompt"), prompt.get("prompt_token_ids")
    if text is None and token_ids is None:
        raise ValueError("a prompt dict needs the key 'prompt' or 'prompt_token_ids'")
    if text is not None and not isinstance(text, str):
        raise ValueError(f"'prompt' must be a string, not {_describe(text)}")
    salt = prompt.get("cache_salt")
    if salt is not None and not (isinstance(salt, str) and salt):
        raise ValueError(f"'cache_salt' must be a non-empty string, not {_describe(salt)}")
    ids = None if token_ids is None else _token_ids(token_ids)
    return ParsedPrompt(text=text, token_ids=ids, cache_salt=salt)


def _token_ids(ids: Any) -> list[int]:
    """Plain non-negative ints; whether they are in the vocabulary is checked later."""
    if _is_array(ids):
        if ids.ndim != 1:
            raise ValueError(f"token ids must be a 1-D array, not one of shape {tuple(ids.shape)}")
        ids = ids.tolist()
    if not is_list(ids):
        raise ValueError(f"token ids must be a list of ints, not {_describe(ids)}")
    ids = list(ids)
    if not ids:
        raise ValueError("a prompt has no token ids; give at least one, such as the BOS token")
    return plain_ids(ids) or [_token_id(i) for i in ids]


def _token_id(value: Any) -> int:
    """A NumPy integer is a token id; a bool, a float or a string is not."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"token ids must be ints, not {_describe(value)}")
    token_id = operator.index(value)
    if token_id < 0:
        raise ValueError(f"token id {token_id} is negative; token ids start at 0")
    return token_id


def _is_array(value: Any) -> bool:
    """A NumPy array or a torch tensor with at least one dimension."""
    if isinstance(value, _TEXTS):  # a memoryview has both attributes
        return False
    return hasattr(value, "tolist") and hasattr(value, "ndim") and value.ndim > 0


def _is_set(value: Any) -> bool:
    return value is not None and not (isinstance(value, (Mapping, list, tuple)) and not value)


def _describe(value: Any) -> str:
    return f"{shown(value)} ({type(value).__name__})"
