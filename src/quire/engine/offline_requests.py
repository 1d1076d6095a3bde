"""The requests of offline calls, from prompts or conversations and parameters: checked, numbered.

Knows nothing about how they are run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from quire.chat_template import (
    ChatOptions,
    ChatRenderer,
    Conversation,
    is_one_conversation,
    text_of,
)
from quire.engine.front import checked_params
from quire.engine.input_processor import ProcessedRequest
from quire.engine.llm_engine import LLMEngine
from quire.prompts import ParsedPrompt, is_list, listed, name_in_list
from quire.reasoning import ReasoningFormat, Thoughts
from quire.row_sampling import SettledParams
from quire.sampling_params import BeamSearchParams, RequestOutputKind, SamplingParams
from quire.structured import Thinking

Params = SamplingParams | BeamSearchParams | Sequence[SamplingParams | BeamSearchParams]

_CHARACTERS_A_TOKEN = 4  # roughly
_PLAIN = (int, float, str)


class OfflineRequests:
    """Makes the requests of one `LLM` for its engine; their ids count up."""

    def __init__(
        self,
        engine: LLMEngine,
        tokens_at_once: int,  # prompt tokens that the first steps need
        *,
        chat_template: str | None = None,
        reasoning: ReasoningFormat | None = None,
    ) -> None:
        self._engine = engine
        self._tokens_at_once = tokens_at_once
        self._chat_template = chat_template
        self._reasoning = reasoning
        self._known_thoughts: Thoughts | None = None
        self.numbers = itertools.count()

    def render(
        self, messages: Conversation | Sequence[Conversation], options: ChatOptions
    ) -> list[ParsedPrompt]:
        """The prompts of one conversation or of a list of them."""
        messages = listed(messages)
        renderer = ChatRenderer(self._engine.get_tokenizer(), self._chat_template)
        conversations = cast(
            "Sequence[Conversation]", [messages] if is_one_conversation(messages) else messages
        )
        prompts = []
        for i, conversation in enumerate(conversations):
            name = name_in_list("messages", i, len(conversations))
            try:
                prompt = renderer.render(conversation, options)
                thinking = self._thinking(conversation, prompt, options)
                prompts.append(replace(prompt, name=name, thinking=thinking))
            except ValueError as error:
                if len(conversations) == 1:
                    raise
                raise ValueError(f"{name}: {error}") from error
        return prompts

    def all(
        self,
        prompts: list[ParsedPrompt],
        params: Params | None,
        kind: RequestOutputKind,
        priorities: Sequence[int] | None,
    ) -> list[ProcessedRequest]:
        """All requests of one call, checked."""
        return list(self.in_turn(prompts, params, kind, priorities))

    def in_turn(
        self,
        prompts: list[ParsedPrompt],
        params: Params | None,
        kind: RequestOutputKind,
        priorities: Sequence[int] | None,
    ) -> Iterator[ProcessedRequest]:
        """The requests of one call, each made and checked when it is asked for."""
        all_params = self._params(params, len(prompts), kind)
        priorities = listed(priorities)
        if priorities is not None and not is_list(priorities):
            raise ValueError(
                f"priority must be a list of integers, got {priorities!r}; give one each"
            )
        if priorities is not None and len(priorities) != len(prompts):
            raise ValueError(
                f"{len(priorities)} priorities were given for {len(prompts)} prompts; give one each"
            )
        return map(
            self._made, self._tokenized(prompts), all_params, priorities or itertools.repeat(0)
        )

    def _made(
        self, prompt: ParsedPrompt, params: SamplingParams, priority: int
    ) -> ProcessedRequest:
        request_id = str(next(self.numbers))
        if prompt.thinking is None and (thoughts := self._thoughts) is not None:
            prompt = replace(prompt, thinking=thoughts.after_raw(prompt, params))
        return self._engine.front.process(request_id, prompt, params, priority=priority)

    def _tokenized(self, prompts: list[ParsedPrompt]) -> Iterator[ParsedPrompt]:
        """The prompts with token ids. Texts are tokenized together, which is faster, but no more at
        a time than the first steps need."""
        at_once = _CHARACTERS_A_TOKEN * self._tokens_at_once
        part: list[ParsedPrompt] = []
        num_characters = 0
        for prompt in prompts:
            part.append(prompt)
            num_characters += len(prompt.text or "")
            if num_characters >= at_once:
                yield from self._engine.front.inputs.tokenize_all(part)
                part, num_characters = [], 0
        yield from self._engine.front.inputs.tokenize_all(part)

    def _params(
        self, params: Params | None, num_prompts: int, kind: RequestOutputKind
    ) -> list[SamplingParams]:
        """One copy of the parameters per prompt, since callers keep theirs. Equal neighbours share
        one, which is then checked once."""
        if params is None:
            params = self._engine.get_default_sampling_params()
        params = listed(params)
        if not is_list(params):
            return [SettledParams.of(_with_kind(params, kind))] * num_prompts
        if len(params) != num_prompts:
            raise ValueError(
                f"{len(params)} sampling parameters were given for {num_prompts} prompts; give one "
                "for all, or one each"
            )
        return list(_copies(params, kind))

    @property
    def _thoughts(self) -> Thoughts | None:
        """The marks of thoughts in tokens of the current tokenizer, which may have been replaced;
        None without a reasoning parser."""
        if self._reasoning is None:
            return None
        tokenizer = self._engine.get_tokenizer()
        if self._known_thoughts is None or self._known_thoughts.tokenizer is not tokenizer:
            self._known_thoughts = Thoughts.of(self._reasoning, tokenizer)
        return self._known_thoughts

    def _thinking(
        self, conversation: Conversation, prompt: ParsedPrompt, options: ChatOptions
    ) -> Thinking | None:
        """The thinking that the answer may begin with, as the template's prompt or the continued
        message tells."""
        thoughts = self._thoughts
        if thoughts is None:
            return None
        content = conversation[-1].get("content") if options.continue_final_message else None
        begun = None if content is None else text_of(content)
        opening = thoughts.format.opening_of_chat(prompt.text or "", begun)
        return thoughts.after(opening, is_forbidden=options.forbids_thoughts)


def _copies(
    params: Sequence[SamplingParams | BeamSearchParams], kind: RequestOutputKind
) -> Iterator[SamplingParams]:
    last: SamplingParams | BeamSearchParams | None = None
    copied: SamplingParams | None = None
    for one in params:
        if copied is None or not _ask_the_same(one, last):
            copied = SettledParams.of(_with_kind(one, kind))
        last = one
        yield copied


def _ask_the_same(one: object, other: object) -> bool:
    """Whether two parameters certainly ask for the same. Other values than plain ones are compared
    by identity: equal schemas may differ in their order, equal logits processors in their state."""
    if not type(one) is type(other) is SamplingParams:
        return False
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(
        a is b or (type(a) is type(b) and (a == b if isinstance(a, _PLAIN) else a == [] == b))
        for a, b in pairs
    )


def _with_kind(params: object, kind: RequestOutputKind) -> SamplingParams:
    checked = checked_params(params)
    own = checked.to_sampling_params() if isinstance(checked, BeamSearchParams) else checked.clone()
    own.output_kind = kind
    return own
