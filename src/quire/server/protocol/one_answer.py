"""Fields that requests of other APIs than OpenAI's older ones may have too: by the same names as in
a chat request, which such a request becomes.
"""

from __future__ import annotations

from typing import Any, Literal

from quire.server.protocol.common import Body, Int64, Seconds


class OneAnswerBody(Body):
    """Asks for one completion; None is the default of the server."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: Int64 | None = None
    min_p: float | None = None
    min_tokens: Int64 | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: Int64 | None = None
    logit_bias: dict[str, float] | None = None
    allowed_token_ids: list[Int64] | None = None
    bad_words: list[str] | None = None
    stop_token_ids: list[Int64] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    truncate_prompt_tokens: Int64 | None = None
    truncation_side: Literal["left", "right"] | None = None

    stream: bool | None = False
    stream_interval: Int64 | None = None  # tokens between two events

    priority: Int64 | None = 0
    cache_salt: str | None = None
    request_id: str | None = None
    timeout_s: Seconds | None = None  # for all of it
    queue_timeout_s: Seconds | None = None  # until the first token

    def chat_fields(self) -> dict[str, Any]:
        """Those that are set."""
        values = ((name, getattr(self, name)) for name in OneAnswerBody.model_fields)
        return {name: value for name, value in values if value is not None}
