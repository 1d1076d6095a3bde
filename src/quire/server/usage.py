"""How many tokens a request has read, found in the cache, and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from quire.server.errors import bad_request
from quire.server.protocol.common import GenerationBody, StreamOptions


@dataclass(slots=True)
class Usage:
    """Sums over all prompts and completions of one HTTP request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0  # of the prompts
    reasoning_tokens: int | None = None  # of the completions; None: reasoning is not parsed

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def as_dict(self) -> dict[str, Any]:
        usage: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.total_tokens,
            "completion_tokens": self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }
        if self.reasoning_tokens is not None:
            usage["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        return usage


@dataclass(frozen=True, slots=True)
class StreamUsage:
    """In which chunks a stream reports its usage."""

    at_end: bool
    on_every_chunk: bool

    @classmethod
    def of(cls, body: GenerationBody, is_forced: bool) -> StreamUsage:
        """As the body asks; ``is_forced``, a flag of the server, turns on both."""
        options = body.stream_options or StreamOptions()
        at_end = is_forced or bool(options.include_usage)
        if options.continuous_usage_stats and not at_end:
            raise bad_request(
                "continuous_usage_stats has no effect without include_usage; set include_usage to "
                "true too, or leave it out.",
                "stream_options",
            )
        return cls(at_end, is_forced or bool(options.continuous_usage_stats))
