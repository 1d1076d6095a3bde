"""A conversation with a model on a server; `conversation.py` has the one with a local model."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping
from typing import Any, TextIO

from quire.cli.conversation import ROOM_FOR_ANSWER, History
from quire.clients.remote import RemoteModel, RemoteServer

_BYTES_PER_TOKEN = 3  # fewer than in most texts: rather make room too early than too late
_TOKENS_AROUND_TURN = 16  # added by the chat template
_PATH = "/v1/chat/completions"
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class RemoteConversation:
    """Like `conversation.Conversation`. Past turns are counted by the server's usage, the next one
    is estimated; a server that reports no context length must itself refuse what is too long.
    Reasoning goes to standard error and is not sent back: templates want no earlier reasoning."""

    def __init__(
        self,
        server: RemoteServer,
        model: RemoteModel,
        fields: Mapping[str, Any],
        system: str | None = None,
    ) -> None:
        """``fields`` are the sampling fields of each request."""
        self._server = server
        self._model = model
        self._fields = dict(fields)
        self.history = History(system)
        self._turn_tokens: list[int] = []  # of each question with its answer
        self.was_cut, self.num_tokens, self.num_forgotten = False, 0, 0

    @property
    def context(self) -> int:
        """Most tokens of a prompt and its answer together; 0 if the server does not report it."""
        return self._model.max_model_len or 0

    def clear(self) -> None:
        self.history.clear()
        self._turn_tokens = []

    def say(self, text: str) -> Generator[str, None, None]:
        """Stream the answer's text; pieces are empty while the model is reasoning."""
        self.was_cut, self.num_tokens, self.num_forgotten = False, 0, 0
        num_left_out = self._num_left_out(text)
        messages = self.history.messages(text, without=num_left_out)
        body = {**self._fields, "model": self._model.name, "messages": messages}
        answer, num_tokens = "", 0
        thoughts = _Thoughts(sys.stderr)
        events = self._server.stream(_PATH, body)
        try:
            for event in events:
                if num_left_out and not self.num_forgotten:  # the server has accepted the question
                    self._forget(num_left_out)
                num_tokens = _said_tokens(event) or num_tokens
                self.num_tokens = _tokens(event, "completion_tokens") or self.num_tokens
                for choice in event.get("choices", ()):
                    self.was_cut = choice.get("finish_reason") == "length"
                    delta = choice.get("delta") or {}
                    if thought := delta.get("reasoning") or delta.get("reasoning_content"):
                        yield ""  # first: the caller may have something to say before it
                        thoughts.add(thought)
                    if piece := delta.get("content"):
                        thoughts.end()
                        answer += piece
                        yield piece
        finally:
            events.close()
            thoughts.end(was_cut=self.was_cut and not answer)
            if answer or thoughts.have_come:
                self._remember(text, answer, num_tokens)

    def _num_left_out(self, text: str) -> int:
        """How many of the oldest turns must be left out so that ``text`` and an answer fit."""
        if not self.context:
            return 0
        most = self._fields.get("max_tokens", self.context)
        wanted = _estimate(text) + min(most, int(self.context * ROOM_FOR_ANSWER))
        num_turns = len(self._turn_tokens)
        return next(
            (n for n in range(num_turns) if sum(self._turn_tokens[n:]) + wanted <= self.context),
            num_turns,
        )

    def _forget(self, num_turns: int) -> None:
        self.history.forget(num_turns)
        del self._turn_tokens[:num_turns]
        self.num_forgotten = num_turns

    def _remember(self, question: str, answer: str, num_tokens: int) -> None:
        """Add a turn; ``num_tokens`` counts the whole conversation, 0 if it was not reported."""
        self.history.add(question, answer)
        guess = _estimate(question) + _estimate(answer)
        new = num_tokens - sum(self._turn_tokens) if num_tokens else guess
        self._turn_tokens.append(max(1, new))


class _Thoughts:
    """Prints a model's reasoning: dim on a terminal, elsewhere as lines marked ``[thoughts]``."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._before, self._after = (_DIM, _PLAIN) if out.isatty() else ("[thoughts] ", "")
        self._is_open = False
        self.have_come = False

    def add(self, piece: str) -> None:
        self._write(piece if self._is_open else self._before + piece)
        self._is_open = self.have_come = True

    def end(self, was_cut: bool = False) -> None:
        """``was_cut``: the length limit was reached, so no answer follows."""
        if not self._is_open:
            return
        self._is_open = False
        self._write(self._after + "\n")
        if was_cut:
            self._write("[cut at the length limit while still thinking; raise --max-tokens]\n")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _said_tokens(event: Mapping[str, Any]) -> int:
    """Tokens of the conversation, less reasoning tokens if the server reports them; 0: no usage."""
    details = (event.get("usage") or {}).get("completion_tokens_details") or {}
    return max(0, _tokens(event, "total_tokens") - int(details.get("reasoning_tokens") or 0))


def _tokens(event: Mapping[str, Any], name: str) -> int:
    usage = event.get("usage") or {}
    return int(usage.get(name) or 0)


def _estimate(text: str) -> int:
    return len(text.encode()) // _BYTES_PER_TOKEN + _TOKENS_AROUND_TURN
