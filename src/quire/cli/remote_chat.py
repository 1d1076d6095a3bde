"""A conversation whose model is on a server; `chat.py` has the one whose model is here."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping
from typing import Any, TextIO

from quire.cli.chat import ROOM_FOR_ANSWER, Message
from quire.clients.remote import RemoteModel, RemoteServer

_BYTES_PER_TOKEN = 3  # fewer than most texts have: room is made rather too early than too late
_TOKENS_AROUND_TURN = 16  # of the template
_PATH = "/v1/chat/completions"
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class RemoteConversation:
    """As `chat.Conversation`. Tokens are known from the usage that the server reports, the next
    turn's are estimated; a server that does not tell its context says itself when it is full.
    Thoughts go to standard error, and are not said again: templates want no earlier ones."""

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
        self._opening: list[Message] = [{"role": "system", "content": system}] if system else []
        self.messages: list[Message] = list(self._opening)
        self._turn_tokens: list[int] = []  # of each question with its answer
        self.was_cut, self.num_tokens = False, 0

    @property
    def context(self) -> int:
        """Tokens of a prompt and its answer together; 0 if the server does not tell."""
        return self._model.max_model_len or 0

    def clear(self) -> None:
        self.messages = list(self._opening)
        self._turn_tokens = []

    def make_room(self, text: str) -> int:
        """Forget the oldest turns until ``text`` and an answer fit; how many were forgotten."""
        if not self.context:
            return 0
        most = self._fields.get("max_tokens", self.context)
        wanted = _estimate(text) + min(most, int(self.context * ROOM_FOR_ANSWER))
        num_forgotten = 0
        while self._turn_tokens and sum(self._turn_tokens) + wanted > self.context:
            first = len(self._opening)
            del self.messages[first : first + 2], self._turn_tokens[0]
            num_forgotten += 1
        return num_forgotten

    def say(self, text: str) -> Generator[str, None, None]:
        """The answer's text as it comes; a piece is empty while the model thinks."""
        turn = {"role": "user", "content": text}
        body = {**self._fields, "model": self._model.name, "messages": [*self.messages, turn]}
        answer, num_tokens = "", 0
        thoughts = _Thoughts(sys.stderr)
        self.was_cut, self.num_tokens = False, 0
        events = self._server.stream(_PATH, body)
        try:
            for event in events:
                num_tokens = _said_tokens(event) or num_tokens
                self.num_tokens = _tokens(event, "completion_tokens") or self.num_tokens
                for choice in event.get("choices", ()):
                    self.was_cut = choice.get("finish_reason") == "length"
                    delta = choice.get("delta") or {}
                    if thought := delta.get("reasoning") or delta.get("reasoning_content"):
                        thoughts.add(thought)
                        yield ""
                    if piece := delta.get("content"):
                        thoughts.end()
                        answer += piece
                        yield piece
        finally:
            events.close()
            thoughts.end(was_cut=self.was_cut and not answer)
            if answer or thoughts.have_come:
                self._remember(turn, answer, num_tokens)

    def _remember(self, turn: Message, answer: str, num_tokens: int) -> None:
        """``num_tokens`` are those of the whole conversation; 0: not reported."""
        self.messages += [turn, {"role": "assistant", "content": answer}]
        guess = _estimate(turn["content"]) + _estimate(answer)
        new = num_tokens - sum(self._turn_tokens) if num_tokens else guess
        self._turn_tokens.append(max(1, new))


class _Thoughts:
    """Shows what a model thinks before it answers: dim, or as lines where there is no terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._before, self._after = (_DIM, _PLAIN) if out.isatty() else ("[thoughts] ", "")
        self._is_open = False
        self.have_come = False

    def add(self, piece: str) -> None:
        self._write(piece if self._is_open else self._before + piece)
        self._is_open = self.have_come = True

    def end(self, was_cut: bool = False) -> None:
        """``was_cut``: no answer will come."""
        if not self._is_open:
            return
        self._is_open = False
        self._write(self._after + "\n")
        if was_cut:
            self._write("[cut within its thoughts; --max-tokens gives it more room]\n")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _said_tokens(event: Mapping[str, Any]) -> int:
    """Those of the conversation, without thoughts where the server counts these."""
    details = (event.get("usage") or {}).get("completion_tokens_details") or {}
    return max(0, _tokens(event, "total_tokens") - int(details.get("reasoning_tokens") or 0))


def _tokens(event: Mapping[str, Any], name: str) -> int:
    usage = event.get("usage") or {}
    return int(usage.get(name) or 0)


def _estimate(text: str) -> int:
    return len(text.encode()) // _BYTES_PER_TOKEN + _TOKENS_AROUND_TURN
