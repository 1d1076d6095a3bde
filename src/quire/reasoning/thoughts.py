"""A model's thoughts as tokens, for whoever limits them or lets a grammar begin behind them."""

from __future__ import annotations

from dataclasses import dataclass
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
    """One format in the tokens of one tokenizer."""

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
        """What an answer that begins so may begin with; a thought that is forbidden ends at once,
        unless the request has a budget of its own."""
        is_open = {Opening.IN_THOUGHT: True, Opening.AFTER_THOUGHT: False}.get(opening)
        if is_open is None and self.format.is_usual:
            is_open = True
        budget = 0 if is_forbidden else None
        return Thinking(begins=self.begins, ends=self.ends, is_open=is_open, budget=budget)

    def after_raw(self, prompt: ParsedPrompt, params: SamplingParams) -> Thinking | None:
        """The same behind a prompt that is no conversation: a grammar waits for the end of a
        thought that is open, and leads no answer into one."""
        has_budget = params.thinking_token_budget is not None
        if not has_budget and params.grammar is None:
            return None
        text = prompt.text
        if text is None:
            known = range(len(self.tokenizer))  # the engine refuses others
            token_ids = [one for one in prompt.token_ids or [] if one in known]
            text = str(self.tokenizer.decode(token_ids))
        opening = self._opening_of_raw(text)
        return self.after(opening) if has_budget or opening is Opening.IN_THOUGHT else None

    def _opening_of_raw(self, prompt: str) -> Opening:
        """The last tag says whether a thought is open, if it ends the prompt, or begins a line or a
        turn and no special token, such as one that ends a turn, stands behind it. Anywhere else it
        is only talked about."""
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
