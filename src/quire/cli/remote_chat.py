"""A conversation whose model is on a server; `chat.py` has the one whose model is here."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from quire.cli.chat import ROOM_FOR_ANSWER, Message
from quire.clients.remote import RemoteModel, RemoteServer

_BYTES_PER_TOKEN = 3  # fewer than most texts have: room is made rather too early than too late
_TOKENS_AROUND_TURN = 16  # of the template
_PATH = "/v1/chat/completions"


class RemoteConversation:
    """As `chat.Conversation`. Tokens are known from the usage that the server reports, the next
    turn's are estimated; a server that does not tell its context says itself when it is full."""

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
        """The answer's text as it comes."""
        turn = {"role": "user", "content": text}
        body = {**self._fields, "model": self._model.name, "messages": [*self.messages, turn]}
        answer, num_tokens = "", 0
        self.was_cut, self.num_tokens = False, 0
        events = self._server.stream(_PATH, body)
        try:
            for event in events:
                num_tokens = _tokens(event, "total_tokens") or num_tokens
                self.num_tokens = _tokens(event, "completion_tokens") or self.num_tokens
                for choice in event.get("choices", ()):
                    self.was_cut = choice.get("finish_reason") == "length"
                    piece = (choice.get("delta") or {}).get("content") or ""
                    answer += piece
                    if piece:
                        yield piece
        finally:
            events.close()
            if answer:
                self._remember(turn, answer, num_tokens)

    def _remember(self, turn: Message, answer: str, num_tokens: int) -> None:
        """``num_tokens`` are those of the whole conversation; 0: not reported."""
        self.messages += [turn, {"role": "assistant", "content": answer}]
        guess = _estimate(turn["content"]) + _estimate(answer)
        new = num_tokens - sum(self._turn_tokens) if num_tokens else guess
        self._turn_tokens.append(max(1, new))


def _tokens(event: Mapping[str, Any], name: str) -> int:
    usage = event.get("usage") or {}
    return int(usage.get(name) or 0)


def _estimate(text: str) -> int:
    return len(text.encode()) // _BYTES_PER_TOKEN + _TOKENS_AROUND_TURN
