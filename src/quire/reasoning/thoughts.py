"""Marks of thoughts as tokens, for limits on thinking and for grammars that begin after it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quire.prompts import ParsedPrompt
from quire.reasoning.parser import Opening
from quire.reasoning.registry import ReasoningFormat
from quire.sampling_params import SamplingParams
from quire.structured import Thinking, TokenMark

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Thoughts:
    """The marks of one format in the tokens of one tokenizer."""

    format: ReasoningFormat
    tokenizer: PreTrainedTokenizerBase
    begins: tuple[TokenMark, ...]
    ends: tuple[TokenMark, ...]
    special_tokens: frozenset[str]

    @classmethod
    def of(cls, format: ReasoningFormat, tokenizer: PreTrainedTokenizerBase) -> Thoughts:
        from quire.tokenizer.token_marks import TokenMarks

        marks = TokenMarks(tokenizer)
        return cls(
            format=format,
            tokenizer=tokenizer,
            begins=marks.of_all(format.begins),
            ends=marks.of_all(format.answer_begins),
            special_tokens=special_tokens_of(tokenizer),
        )

    def after(self, opening: Opening, *, is_forbidden: bool = False) -> Thinking:
        """The thinking of an answer with this opening; a forbidden thought gets a budget of 0,
        unless the request has a budget of its own."""
        is_open = {Opening.IN_THOUGHT: True, Opening.AFTER_THOUGHT: False}.get(opening)
        if is_open is None and self.format.is_usual:
            is_open = True
        budget = 0 if is_forbidden else None
        return Thinking(begins=self.begins, ends=self.ends, is_open=is_open, budget=budget)

    def after_raw(self, prompt: ParsedPrompt, params: SamplingParams) -> Thinking | None:
        """The thinking after a raw prompt; None if nothing depends on it. A grammar waits for the
        end of a thought that the prompt has opened, and otherwise begins at once."""
        is_constrained = params.is_constrained
        if params.thinking_token_budget is None and not is_constrained:
            return None
        text = prompt.text
        if text is None:
            known = range(len(self.tokenizer))  # the engine refuses others
            token_ids = [one for one in prompt.token_ids or [] if one in known]
            text = str(self.tokenizer.decode(token_ids))
        opening = self._opening_of_raw(text)
        thinking = self.after(opening)
        begins_at_once = is_constrained and opening is not Opening.IN_THOUGHT
        return replace(thinking, is_open=False) if begins_at_once else thinking

    def _opening_of_raw(self, prompt: str) -> Opening:
        """A thought is open if the last begin tag ends the prompt, or if it begins a line or a turn
        and no end tag or special token follows it. Elsewhere the tag is only talked about."""
        places = [(prompt.rfind(tag), tag) for tag in self.format.begins if tag in prompt]
        place, tag = max(places, default=(-1, ""))
        head, tail = prompt[:place], prompt[place + len(tag) :]
        closed = any(end in tail for end in self.format.answer_begins)
        if place < 0 or closed or any(token in tail for token in self.special_tokens):
            return self.format.opening(prompt)
        line = head.rpartition("\n")[2].rstrip()
        is_begun = not line or line.endswith(tuple(self.special_tokens))
        return Opening.IN_THOUGHT if is_begun else self.format.opening(prompt)


def special_tokens_of(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    added = (str(one) for one in tokenizer.added_tokens_decoder.values() if one.special)
    return frozenset(tokenizer.all_special_tokens) | frozenset(added)
