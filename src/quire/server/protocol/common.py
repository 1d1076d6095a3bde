"""What the bodies of requests have in common, as pydantic models.

Owns names and types; ranges are checked by `sampling_limits.py`, which the Python API shares. A
field that is not declared lands in ``model_extra``, where `server/fields.py` checks it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    StrictFloat,
    WithJsonSchema,
)

from quire.server.forms import Form
from quire.shown import shown

T = TypeVar("T")

INT64 = 2**63


def _whole_number(value: Any) -> Any:
    """Refuse "5" and true, which pydantic would accept; it also accepts 5.0, an integer in JSON."""
    if isinstance(value, (bool, str)):
        raise ValueError(f"must be an integer, got {shown(value)}")
    return value


_TOKEN_ID = re.compile(r"-?(0|[1-9][0-9]{0,18})")  # those below 0 are refused later


def _token_biases(value: Any) -> Any:
    """Checked by hand: pydantic would hold the GIL for a million of them. By a regular expression,
    as `int` would accept "1_0" and " 10 " too."""
    if not isinstance(value, dict):
        raise ValueError(f"must be an object from token ids to numbers, got {shown(value)}")
    for key, bias in value.items():
        if not _TOKEN_ID.fullmatch(key):
            raise ValueError(f"a key must be a token id, such as '10', got {shown(key)}")
        if type(bias) not in (int, float) or not abs(bias) <= sys.float_info.max:
            raise ValueError(f"the bias of {key} must be a finite number, got {shown(bias)}")
    return value


TokenBiases = Annotated[
    dict[str, float],
    PlainValidator(_token_biases),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "number"}}),
]
Int64 = Annotated[int, Field(ge=-INT64, le=INT64 - 1), BeforeValidator(_whole_number)]
# For lists, which may be long: checked without calls of Python functions.
StrictInt64 = Annotated[int, Field(strict=True, ge=-INT64, le=INT64 - 1)]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Seconds = Annotated[StrictFloat, Field(gt=0, allow_inf_nan=False)]
# Stops at the first error: millions of bad items would otherwise make gigabytes of errors.
Items = Annotated[list[T], Field(fail_fast=True)]


def _checked(kinds: tuple[type, ...], words: str) -> PlainValidator:
    """A validator with one message for all types of a field; pydantic would have one for each."""

    def check(value: Any) -> Any:
        if value is None or isinstance(value, kinds):
            return value
        raise ValueError(f"must be {words}, got {shown(value)}")

    return PlainValidator(check)


def _schema(*kinds: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [*kinds, {"type": "null"}]})


_STRING = {"type": "string"}
_OBJECT = {"type": "object"}
TextOrParts = Annotated[
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
    """A body that accepts every field; `server/fields.py` must check the undeclared ones."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    forms: ClassVar[Mapping[str, Form]] = {}  # field -> form of the objects in it
    constraints: ClassVar[str] = ""  # its fields that constrain answers, if it generates any

    model: str | None = None  # name of the served model


class SamplingBody(Body):
    """Fields that all generating requests may have, named as in OpenAI's completions; None is the
    server's default."""

    temperature: StrictFloat | None = None
    top_p: StrictFloat | None = None
    top_k: Int64 | None = None
    min_p: StrictFloat | None = None
    min_tokens: Int64 | None = None
    presence_penalty: StrictFloat | None = None
    frequency_penalty: StrictFloat | None = None
    repetition_penalty: StrictFloat | None = None
    seed: Int64 | None = None
    logit_bias: TokenBiases | None = None
    allowed_token_ids: Items[StrictInt64] | None = None
    bad_words: Items[str] | None = None
    stop_token_ids: Items[StrictInt64] | None = None
    include_stop_str_in_output: StrictBool | None = None
    ignore_eos: StrictBool | None = None
    skip_special_tokens: StrictBool | None = None
    spaces_between_special_tokens: StrictBool | None = None
    logits_processors: Items[str | dict[str, Any]] | None = None  # names of code
    truncate_prompt_tokens: Int64 | None = None
    truncation_side: Literal["left", "right"] | None = None

    stream: StrictBool | None = False
    stream_interval: Int64 | None = None  # tokens between two events

    priority: Int64 | None = 0
    cache_salt: str | None = None
    request_id: str | None = None
    timeout_s: Seconds | None = None  # until all of it has ended
    queue_timeout_s: Seconds | None = None  # until the first token

    def sampling_fields(self) -> dict[str, Any]:
        """The fields of `SamplingBody` that are set."""
        values = ((name, getattr(self, name)) for name in SamplingBody.model_fields)
        return {name: value for name, value in values if value is not None}


class StreamOptions(BaseModel):
    """Which usage a stream reports besides the text."""

    model_config = ConfigDict(extra="allow")

    include_usage: StrictBool | None = False  # a last chunk with the usage
    continuous_usage_stats: StrictBool | None = False  # the usage so far on every chunk


# Accepted without effect: obfuscation, padding against traffic analysis, is never sent.
STREAM_OPTIONS = Form(known=("include_obfuscation",))


# Other servers honour a schema here, so that it is refused rather than ignored.
JSON_OBJECT = Form(
    known=("type",),
    refused={"schema": "json_object has no schema; use the type json_schema"},
)
_RESPONSE_FORMAT = Form(
    types={
        "text": Form(known=("type",)),
        "json_object": JSON_OBJECT,
        "json_schema": Form(
            known=("type",),
            inside={
                "json_schema": Form(
                    known=("name", "description", "schema", "strict"),
                    required={"schema": '{"name": "my_answer", "schema": {"type": "object"}}'},
                )
            },
            required={
                "json_schema": '{"type": "json_schema", "json_schema": {"name": "my_answer", '
                '"schema": {"type": "object"}}}'
            },
        ),
    }
)


class GenerationBody(SamplingBody):
    """Fields of both completions and chat."""

    constraints: ClassVar[str] = "response_format or structured_outputs"

    forms: ClassVar[Mapping[str, Form]] = {
        "stream_options": STREAM_OPTIONS,
        "response_format": _RESPONSE_FORMAT,
    }

    n: Int64 | None = 1
    best_of: Int64 | None = None
    max_tokens: Int64 | None = None
    stop: Strings = None
    use_beam_search: StrictBool | None = None
    length_penalty: StrictFloat | None = None
    early_stopping: EarlyStopping = None
    prompt_logprobs: Int64 | None = None
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    guided_json: str | dict[str, Any] | None = None  # the older names
    guided_regex: str | None = None
    guided_choice: Items[str] | None = None
    guided_grammar: str | None = None
    guided_whitespace_pattern: str | None = None
    guided_decoding_backend: str | None = None  # its options change the JSON
    thinking_token_budget: Int64 | None = None
    return_tokens_as_token_ids: StrictBool | None = None
    return_token_ids: StrictBool | None = None


# What clients note in messages and calls for themselves: LiteLLM what it got beside them from any
# server, OpenAI's client its parse of the arguments.
CALL_NOTES = ("provider_specific_fields", "parsed_arguments")
# LiteLLM also sends reasoning in up to three forms.
MESSAGE_NOTES = ("provider_specific_fields", "thinking_blocks", "reasoning_items")


class ChatMessage(BaseModel):
    """One message; templates see all its keys."""

    model_config = ConfigDict(extra="allow")

    role: str
    content: TextOrParts = None


_CACHE_MARK = "cache_control"  # has no effect: every prefix is cached
_TEXT_PART = Form(known=("type", "text", "refusal", "annotations", "logprobs", _CACHE_MARK))
_PART = Form(
    types=dict.fromkeys(("text", "input_text", "output_text", "refusal"), _TEXT_PART),
    default_type="text",
)
_TOOL_CALL = Form(
    known=("id", "type", "index", *CALL_NOTES),
    inside={"function": Form(known=("name", "arguments", *CALL_NOTES), is_for_template=True)},
    is_for_template=True,
)
CHAT_MESSAGE = Form(
    # ``parsed`` is the client's own parse of the content; `messages_input.py` sets ``is_error`` for
    # results of tools; clients such as lm_eval send a ``type``, which says nothing.
    known=(
        *("name", "tool_call_id", "reasoning", "reasoning_content", "annotations", "parsed"),
        *("is_error", "type", *MESSAGE_NOTES),
    ),
    inside={"content": _PART, "tool_calls": _TOOL_CALL},
    refused={
        "audio": "only text is served",
        "refusal": "put its text into content",
        "function_call": "it is the older name of tool_calls",
    },
    is_for_template=True,
)


NO_TOOL_SEARCH = "the server has no tool search; leave it out, then the model sees the tool"
_FUNCTION = Form(
    known=("type", _CACHE_MARK),
    inside={
        "function": Form(
            known=("name", "description", "parameters", "strict", _CACHE_MARK),
            is_for_template=True,
        )
    },
    required={
        "function": '{"type": "function", "function": {"name": "my_function", "parameters": '
        '{"type": "object"}}}'
    },
    is_for_template=True,
)
_CHOSEN_FUNCTION = Form(
    known=("type",),
    inside={"function": Form(known=("name",))},
    required={"function": '{"type": "function", "function": {"name": "my_function"}}'},
)


class ChatPromptBody(Body):
    """The fields from which a chat prompt is rendered."""

    forms: ClassVar[Mapping[str, Form]] = {
        "messages": CHAT_MESSAGE,
        # `tool_choice.py` refuses other types.
        "tools": Form(types={"function": _FUNCTION}, default_type="function"),
        "tool_choice": Form(types={"function": _CHOSEN_FUNCTION}, default_type="function"),
        # Clients set these for any model; one that does not think need not read them.
        "chat_template_kwargs": Form(known=("enable_thinking", "thinking"), is_for_template=True),
    }

    messages: Items[ChatMessage]
    tools: Items[dict[str, Any]] | None = None
    tool_choice: ToolChoice = None
    reasoning_effort: ReasoningEffort | None = None  # for templates that read it
    documents: Items[dict[str, Any]] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: StrictBool | None = None  # true, unless the last message is continued
    continue_final_message: StrictBool | None = False
    add_special_tokens: StrictBool | None = False  # the template has written them
