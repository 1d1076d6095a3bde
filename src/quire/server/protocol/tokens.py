"""The bodies of the endpoints that count and convert tokens."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictBool

from quire.server.protocol.common import INT64, Body, ChatMessage, ChatPromptBody, Items


class TokenizeRequest(ChatPromptBody):
    """A prompt, or messages, to be tokenized."""

    messages: Items[ChatMessage] | None = None  # type: ignore[assignment]
    prompt: str | None = None
    add_special_tokens: StrictBool | None = None  # for a prompt true, for messages false
    return_token_strs: StrictBool | None = False


# Fields that say how messages become a prompt.
ONLY_WITH_MESSAGES = (
    *("tools", "tool_choice", "documents", "chat_template", "chat_template_kwargs"),
    *("add_generation_prompt", "continue_final_message", "reasoning_effort"),
)


class DetokenizeRequest(Body):
    """Token ids to be converted to text."""

    tokens: Items[Annotated[int, Field(strict=True, ge=0, le=INT64 - 1)]]
