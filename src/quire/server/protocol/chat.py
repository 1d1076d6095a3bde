"""The body of ``POST /v1/chat/completions``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import StrictBool

from quire.server.forms import Form
from quire.server.protocol.common import ChatPromptBody, GenerationBody, Int64


class ChatCompletionRequest(ChatPromptBody, GenerationBody):
    """A conversation to be answered."""

    forms: ClassVar[Mapping[str, Form]] = {**ChatPromptBody.forms, **GenerationBody.forms}

    max_completion_tokens: Int64 | None = None  # wins over max_tokens
    logprobs: StrictBool | None = False
    top_logprobs: Int64 | None = None
    parallel_tool_calls: StrictBool | None = True  # false: only the first call is returned
    include_reasoning: StrictBool | None = True
    echo: StrictBool | None = False  # begin with the last message, if its role is the answer's
    return_prompt_text: StrictBool | None = None
