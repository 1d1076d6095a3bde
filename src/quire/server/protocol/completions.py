"""The body of ``POST /v1/completions``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import StrictBool, WithJsonSchema

from quire.server.protocol.common import GenerationBody, Int64

_TOKEN_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_TEXT = {"type": "string", "minLength": 1}
_PROMPT_SCHEMA = {
    "anyOf": [
        _TEXT,
        {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 1024},
        _TOKEN_IDS,
        {"type": "array", "items": _TOKEN_IDS, "minItems": 1, "maxItems": 1024},
    ]
}
# Parsed by hand: pydantic would try four types on a long list, and report an error for each.
CompletionPrompt = Annotated[Any, WithJsonSchema(_PROMPT_SCHEMA)]


class CompletionRequest(GenerationBody):
    """A prompt to be continued."""

    prompt: CompletionPrompt
    suffix: str | None = None
    echo: StrictBool | None = False
    logprobs: Int64 | None = None
    add_special_tokens: StrictBool | None = True
