"""The body of ``POST /v1/chat/completions``."""

from __future__ import annotations

from quire.server.protocol.common import ChatPromptBody, GenerationBody, Int64


class ChatCompletionRequest(ChatPromptBody, GenerationBody):
    """A conversation to be answered."""

    max_completion_tokens: Int64 | None = None  # wins over max_tokens
    logprobs: bool | None = False
    top_logprobs: Int64 | None = None
    echo: bool | None = False  # begin with the last message, if its role is the answer's
    return_prompt_text: bool | None = None
