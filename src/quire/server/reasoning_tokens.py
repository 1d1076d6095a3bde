"""How many tokens of answers were thought: counted when an answer has ended, for the usage."""

from __future__ import annotations

from quire.outputs import CompletionOutput
from quire.server.answer_form import Answer, AnswerForm
from quire.server.state import ServerState
from quire.server.usage import Usage


class ReasoningTokens:
    """Of all completions of one request; does nothing where thoughts are not told apart."""

    def __init__(self, state: ServerState, form: AnswerForm, usage: Usage) -> None:
        self._counts = form.formats.reasoning is not None
        self._tokenizer = state.require_engine().front.tokenizer
        self._usage = usage
        if self._counts:
            usage.reasoning_tokens = 0

    def add(self, one: CompletionOutput, answer: Answer) -> None:
        """Of an output that may not be the last of its completion."""
        text = answer.reasoning if self._counts and one.finish_reason is not None else ""
        if not text:
            return
        assert self._tokenizer is not None and self._usage.reasoning_tokens is not None
        count = len(self._tokenizer.encode(text, add_special_tokens=False))
        self._usage.reasoning_tokens += count
