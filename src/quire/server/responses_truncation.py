"""``truncation: "auto"``: the oldest turns of a conversation that is too long are left out."""

from __future__ import annotations

from quire.server.chat_prompt import chat_prompt
from quire.server.prompt_tokens import tokenized_for_context
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.common import ChatMessage
from quire.server.state import ServerState


def without_oldest_turns(state: ServerState, chat: ChatCompletionRequest) -> ChatCompletionRequest:
    """Drop as few turns as make room for the answer; system messages and the last turn stay.

    The answer has room for ``max_tokens``, or for a quarter of the context if that is not given;
    half of the context is always the prompt's.
    """
    engine = state.require_engine()
    max_model_len = engine.model_config.max_model_len
    answer = chat.max_tokens if chat.max_tokens is not None else max_model_len // 4
    room = max_model_len - min(answer, max_model_len // 2)
    turns = _Turns(chat)

    def fits(index: int) -> bool:
        (prompt,) = tokenized_for_context(
            engine, [chat_prompt(state, turns.without(index))], "right"
        )
        return len(prompt.token_ids or ()) <= room

    first, last = 0, turns.most_left_out  # the fewest that fit, or all but the last
    while first < last:
        middle = (first + last) // 2
        if fits(middle):
            last = middle
        else:
            first = middle + 1
    return turns.without(first)


class _Turns:
    """A conversation as system messages, then turns, each from a user message on."""

    def __init__(self, chat: ChatCompletionRequest) -> None:
        self._chat = chat
        num_head = next((i for i, one in enumerate(chat.messages) if not _is_system(one)), 0)
        self._head, self._rest = chat.messages[:num_head], chat.messages[num_head:]
        self._starts = [0, *(i for i, one in enumerate(self._rest) if i and one.role == "user")]

    @property
    def most_left_out(self) -> int:
        return len(self._starts) - 1

    def without(self, count: int) -> ChatCompletionRequest:
        """The chat without its first ``count`` turns."""
        kept = self._rest[self._starts[count] :]
        return self._chat.model_copy(update={"messages": [*self._head, *kept]})


def _is_system(message: ChatMessage) -> bool:
    return message.role in ("system", "developer")
