"""One request of a measurement, and the bodies that servers take. Knows nothing about sending."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadRequest:
    """A prompt and how many tokens to generate."""

    prompt: str | list[int]
    num_prompt_tokens: int  # 0: unknown until the server counts
    num_output_tokens: int

    def probe(self, num_output_tokens: int) -> LoadRequest:
        """A request of the same length. Token ids are reversed, so that the prefix cache does not
        learn the real prompt; a text stays as it is."""
        prompt = self.prompt if isinstance(self.prompt, str) else self.prompt[::-1]
        return replace(self, prompt=prompt, num_output_tokens=num_output_tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """A kind of API: where requests go, and how they look."""

    endpoint: str
    prompt_fields: Callable[[LoadRequest], dict[str, Any]]

    def body(self, request: LoadRequest, fields: Mapping[str, Any]) -> dict[str, Any]:
        streams = {"stream": True, "stream_options": {"include_usage": True}}
        return {**self.prompt_fields(request), **streams, **fields}


def _completion(request: LoadRequest) -> dict[str, Any]:
    return {"prompt": request.prompt, "max_tokens": request.num_output_tokens}


def _chat(request: LoadRequest) -> dict[str, Any]:
    messages = [{"role": "user", "content": request.prompt}]
    return {"messages": messages, "max_completion_tokens": request.num_output_tokens}


_OPENAI = Backend(endpoint="/v1/completions", prompt_fields=_completion)
CHAT = "openai-chat"
BACKENDS: Mapping[str, Backend] = {
    "openai": _OPENAI,
    CHAT: Backend(endpoint="/v1/chat/completions", prompt_fields=_chat),
    "vllm": _OPENAI,
    "quire": _OPENAI,
}
