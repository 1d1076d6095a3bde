"""A conversation with a local model, and the history that all conversations share.

Knows nothing about terminals; `remote_chat.py` has the conversation with a model on a server.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quire.llm import LLM
    from quire.sampling_params import SamplingParams

ROOM_FOR_ANSWER = 1 / 4  # of the context, unless max_tokens is less

Message = dict[str, str]


class History:
    """A system message that stays, and turns, the oldest of which can be forgotten."""

    def __init__(self, system: str | None = None) -> None:
        self._opening: list[Message] = [{"role": "system", "content": system}] if system else []
        self._turns: list[tuple[Message, Message]] = []  # questions with their answers

    @property
    def num_turns(self) -> int:
        return len(self._turns)

    def messages(self, question: str, *, without: int = 0) -> list[Message]:
        """The messages of a request for ``question``, without the oldest ``without`` turns."""
        turns = [message for turn in self._turns[without:] for message in turn]
        return [*self._opening, *turns, _from_user(question)]

    def add(self, question: str, answer: str) -> None:
        self._turns.append((_from_user(question), {"role": "assistant", "content": answer}))

    def forget(self, num_turns: int) -> None:
        """Drop the oldest ``num_turns`` turns."""
        del self._turns[:num_turns]

    def clear(self) -> None:
        self._turns = []


class Conversation:
    """Asks the model with the turns so far. An interrupted answer is kept as far as it came.

    When an answer begins, the ``num_forgotten`` oldest turns are dropped that left no room for it;
    a question that is refused changes nothing. ``was_cut`` says whether the last answer ended at
    the length limit, ``num_tokens`` how long it is. ``chat_template`` is as in `LLM.chat`.
    """

    def __init__(
        self,
        llm: LLM,
        params: SamplingParams,
        system: str | None = None,
        chat_template: str | None = None,
    ) -> None:
        self._llm = llm
        self._chat_template = chat_template
        self._params = params
        self.history = History(system)
        self.was_cut, self.num_tokens, self.num_forgotten = False, 0, 0

    @property
    def context(self) -> int:
        """Most tokens of a prompt and its answer together."""
        return self._llm.model_config.max_model_len

    def clear(self) -> None:
        self.history.clear()

    def say(self, text: str) -> Generator[str, None, None]:
        """Stream the answer's text."""
        self.was_cut, self.num_tokens, self.num_forgotten = False, 0, 0
        num_left_out = self._num_left_out(text)
        messages = self.history.messages(text, without=num_left_out)
        answer = ""
        try:
            for output in self._llm.stream_chat(
                messages, self._params, chat_template=self._chat_template
            ):
                if not self.num_forgotten:  # the engine has accepted the question
                    self.history.forget(num_left_out)
                    self.num_forgotten = num_left_out
                piece = output.outputs[0].text
                self.was_cut = output.outputs[0].finish_reason == "length"
                self.num_tokens += len(output.outputs[0].token_ids)
                answer += piece
                yield piece
        finally:
            if answer:
                self.history.add(text, answer)

    def _num_left_out(self, text: str) -> int:
        """How many of the oldest turns must be left out so that ``text`` and an answer fit."""
        room = min(self._params.max_tokens or self.context, int(self.context * ROOM_FOR_ANSWER))
        num_turns = self.history.num_turns
        return next(
            (n for n in range(num_turns) if self._num_tokens(text, n) + room <= self.context),
            num_turns,
        )

    def _num_tokens(self, text: str, num_left_out: int) -> int:
        """Tokens of the prompt that asks ``text``, without the oldest ``num_left_out`` turns."""
        from quire.chat_template import ChatRenderer

        tokenizer = self._llm.get_tokenizer()
        renderer = ChatRenderer(tokenizer, self._chat_template)
        prompt = renderer.render(self.history.messages(text, without=num_left_out))
        return len(tokenizer.encode(prompt.text or "", add_special_tokens=False, verbose=False))


def _from_user(text: str) -> Message:
    return {"role": "user", "content": text}
