"""A model's thoughts as tokens, for whoever limits them or lets a grammar begin behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from quire.reasoning.parser import Opening
from quire.reasoning.registry import ReasoningFormat
from quire.structured import Thinking, TokenMark

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Thoughts:
    """One format in the tokens of one tokenizer."""

    format: ReasoningFormat
    begins: tuple[TokenMark, ...]
    ends: tuple[TokenMark, ...]

    @classmethod
    def of(cls, format: ReasoningFormat, tokenizer: PreTrainedTokenizerBase) -> Thoughts:
        from quire.tokenizer.token_marks import TokenMarks

        marks = TokenMarks(tokenizer)
        ends = marks.of_all(format.answer_begins)
        return cls(format, marks.of_all(format.begins), ends)

    def after(self, opening: Opening) -> Thinking:
        """What an answer that begins so may begin with."""
        is_open = {Opening.IN_THOUGHT: True, Opening.AFTER_THOUGHT: False}.get(opening)
        if is_open is None and self.format.is_usual:
            is_open = True
        return Thinking(begins=self.begins, ends=self.ends, is_open=is_open)
