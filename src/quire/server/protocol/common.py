"""What the bodies of generating requests have in common, as pydantic reads them.

Owns names and types; ranges are `sampling_limits.py`'s, which the Python API shares. A field that
is not here lands in ``model_extra``, where `server/fields.py` judges it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

INT64 = 2**63

Int64 = Annotated[int, Field(ge=-INT64, le=INT64 - 1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _checked(kinds: tuple[type, ...], words: str) -> PlainValidator:
    """One message for all types of a field; pydantic itself would have one for each."""

    def check(value: Any) -> Any:
        if value is None or isinstance(value, kinds):
            return value
        raise ValueError(f"must be {words}, got {str(value)[:80]!r}")

    return PlainValidator(check)


def _schema(*kinds: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [*kinds, {"type": "null"}]})


_STRING = {"type": "string"}
_OBJECT = {"type": "object"}
Content = Annotated[
    str | list[Any] | None,
    _checked((str, list), "a string or a list of text parts"),
    _schema(_STRING, {"type": "array", "items": _OBJECT}),
]
Strings = Annotated[
    str | list[str] | None,
    _checked((str, list), "a string or a list of strings"),
    _schema(_STRING, {"type": "array", "items": _STRING}),
]
ToolChoice = Annotated[
    str | dict[str, Any] | None,
    _checked((str, dict), "'none', 'auto', 'required' or a function"),
    _schema(_STRING, _OBJECT),
]
EarlyStopping = Annotated[
    bool | str | None,
    _checked((bool, str), "true, false or 'never'"),
    _schema({"type": "boolean"}, {"const": "never"}),
]


class Body(BaseModel):
    """Takes every field; who reads it must ask `server/fields.py` about the unknown ones."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    model: str | None = None  # the served one


class StreamOptions(BaseModel):
    """What a stream tells beside the text."""

    model_config = ConfigDict(extra="allow")

    include_usage: bool | None = False  # a last chunk with the usage
    continuous_usage_stats: bool | None = False  # the usage so far on every chunk


class GenerationBody(Body):
    """Fields of both completions and chat; None is the server's default."""

    n: Int64 | None = 1
    best_of: Int64 | None = None
    max_tokens: Int64 | None = None
    min_tokens: Int64 | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Int64 | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: Int64 | None = None
    logit_bias: dict[str, float] | None = None
    allowed_token_ids: list[Int64] | None = None
    bad_words: list[str] | None = None
    stop: Strings = None
    stop_token_ids: list[Int64] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    use_beam_search: bool | None = None
    length_penalty: float | None = None
    early_stopping: EarlyStopping = None
    prompt_logprobs: Int64 | None = None
    truncate_prompt_tokens: Int64 | None = None
    truncation_side: Literal["left", "right"] | None = None

    stream: bool | None = False
    stream_options: StreamOptions | None = None
    stream_interval: Int64 | None = None  # tokens between two events

    priority: Int64 | None = 0
    cache_salt: str | None = None
    request_id: str | None = None
    timeout_s: Seconds | None = None  # for all of it
    queue_timeout_s: Seconds | None = None  # until the first token
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool | None = None

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def has_continuous_usage(self) -> bool:
        options = self.stream_options
        return self.includes_usage and bool(options and options.continuous_usage_stats)


class ChatMessage(BaseModel):
    """One message; templates see all its keys."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: Content = None


class ChatPromptBody(Body):
    """What makes a prompt of messages."""

    messages: list[ChatMessage]
    tools: list[dict[str, Any]] | None = None
    tool_choice: ToolChoice = None
    documents: list[dict[str, Any]] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None  # true, unless the last message is continued
    continue_final_message: bool | None = False
    add_special_tokens: bool | None = False  # the template has written them
