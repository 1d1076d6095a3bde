"""Counts reasoning tokens for the usage: when an answer has ended, and while it grows if a stream
reports usage with every chunk."""

from __future__ import annotations

from quire.outputs import CompletionOutput
from quire.server.answer_form import Answer, AnswerForm
from quire.server.state import ServerState
from quire.server.usage import Usage


class ReasoningTokens:
    """Those of all completions of one request; counts nothing without a reasoning parser."""

    def __init__(self, state: ServerState, form: AnswerForm, usage: Usage) -> None:
        self._counts = form.formats.reasoning is not None
        self._tokenizer = state.require_engine().front.tokenizer
        self._usage = usage
        self._counted: dict[int, tuple[int, int]] = {}  # characters, tokens; by completion
        if self._counts:
            usage.reasoning_tokens = 0

    def add(self, one: CompletionOutput, answer: Answer, *, is_told: bool = False) -> None:
        """Count the reasoning of an answer so far; before its last output only if ``is_told``,
        which says that the usage is reported now.

        New text is tokenized by itself and the whole at the end, which may give slightly less.
        """
        is_last = one.finish_reason is not None
        if not self._counts or not (is_last or is_told):
            return
        assert self._usage.reasoning_tokens is not None
        text = answer.reasoning
        num_chars, before = self._counted.get(one.index, (0, 0))
        count = self._count(text) if is_last else before + self._count(text[num_chars:])
        self._counted[one.index] = len(text), count
        self._usage.reasoning_tokens += count - before

    def _count(self, text: str) -> int:
        if not text:
            return 0
        assert self._tokenizer is not None
        return len(self._tokenizer.encode(text, add_special_tokens=False))
