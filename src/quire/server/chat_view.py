"""The choices of a chat answer: message, log-probabilities.

A message is made of the model's text in two places, `message` and `delta`; calls of tools and
reasoning will be taken out of the text there.
"""

from __future__ import annotations

from typing import Any

from quire.outputs import CompletionOutput, RequestOutput
from quire.server.completion_view import names_tokens_by_id
from quire.server.logprobs import chat_logprobs
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.state import ServerState


class ChatView:
    """What one body wants to see of its outputs."""

    def __init__(self, state: ServerState, body: ChatCompletionRequest) -> None:
        self.role = state.args.response_role
        if body.add_generation_prompt is False or body.continue_final_message:
            self.role = body.messages[-1].role if body.messages else self.role
        self.echo = _echo(body, self.role)
        self._body = body
        self._vocabulary = state.require_engine().front.vocabulary
        self._as_token_ids = names_tokens_by_id(body.return_tokens_as_token_ids, state)

    def choices(self, output: RequestOutput) -> list[dict[str, Any]]:
        return [self._choice(one) for one in output.outputs]

    def logprobs(self, one: CompletionOutput) -> dict[str, Any] | None:
        if not self._body.logprobs:
            return None
        return chat_logprobs(
            one.token_ids,
            one.logprobs or [],
            self._body.top_logprobs or 0,
            self._vocabulary,
            self._as_token_ids,
        )

    def message(self, text: str) -> dict[str, Any]:
        """The whole answer."""
        return {
            "role": self.role,
            "content": self.echo + text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
        }

    def _choice(self, one: CompletionOutput) -> dict[str, Any]:
        return {
            "index": one.index,
            "message": self.message(one.text),
            "logprobs": self.logprobs(one),
            "finish_reason": one.finish_reason,
            "stop_reason": one.stop_reason,
            "token_ids": one.token_ids if self._body.return_token_ids else None,
        }


def _echo(body: ChatCompletionRequest, role: str) -> str:
    """The text of the last message, if it is the answer's beginning."""
    last = body.messages[-1] if body.messages else None
    if not body.echo or last is None or last.role != role:
        return ""
    if isinstance(last.content, list):
        texts = [part.get("text") or "" for part in last.content if isinstance(part, dict)]
        return "\n".join(texts)
    return last.content or ""
