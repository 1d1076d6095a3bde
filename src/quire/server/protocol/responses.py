"""The bodies of ``POST /v1/responses`` and ``POST /v1/responses/input_tokens``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, WithJsonSchema

from quire.server.forms import Form
from quire.server.protocol.common import (
    JSON_OBJECT,
    NO_TOOL_SEARCH,
    STREAM_OPTIONS,
    Body,
    Int64,
    Items,
    ReasoningEffort,
    SamplingBody,
    Strings,
    ToolChoice,
)

_ITEMS = {"type": "array", "items": {"type": "object"}}
# Parsed by hand: with two dozen types of items, pydantic would report two dozen errors for one.
ResponseInput = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, _ITEMS]})]

LOGPROBS = "message.output_text.logprobs"
ENCODED_THOUGHTS = "reasoning.encrypted_content"
# The others name parts of items that this server never makes.
Includable = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]


class TextConfig(BaseModel):
    """The form of the answer."""

    model_config = ConfigDict(extra="allow")

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ReasoningConfig(BaseModel):
    """How much to think; reasoning summaries are never made, and asking for one has no effect."""

    model_config = ConfigDict(extra="allow")

    effort: ReasoningEffort | None = None


_TEXT = Form(known=("type", "text", "annotations", "logprobs", "parsed", "prompt_cache_breakpoint"))
_PARTS = Form(
    types={
        **dict.fromkeys(("input_text", "output_text", "text", "reasoning_text"), _TEXT),
        "refusal": Form(known=("type", "refusal")),
    }
)
_ITEM_KEYS = ("type", "id", "status", "created_by")
_CALL_KEYS = ("call_id", "name", "namespace")
_ITEM = Form(
    default_type="message",
    types={
        "message": Form(known=(*_ITEM_KEYS, "role", "phase"), inside={"content": _PARTS}),
        "function_call": Form(known=(*_ITEM_KEYS, *_CALL_KEYS, "arguments", "parsed_arguments")),
        "function_call_output": Form(known=(*_ITEM_KEYS, *_CALL_KEYS), inside={"output": _PARTS}),
        # Summaries are accepted, but neither made nor read.
        "reasoning": Form(
            known=(*_ITEM_KEYS, "summary", "encrypted_content"), inside={"content": _PARTS}
        ),
    },
)
_FORMAT = Form(
    types={
        "text": Form(known=("type",)),
        "json_object": JSON_OBJECT,
        "json_schema": Form(
            known=("type", "name", "schema", "strict", "description"),
            required={
                "schema": '{"type": "json_schema", "name": "my_answer", "schema": '
                '{"type": "object"}}'
            },
        ),
    }
)
_FUNCTION = Form(
    known=("type", "name", "description", "parameters", "strict"),
    switches={"defer_loading": NO_TOOL_SEARCH},
    required={
        "name": '{"type": "function", "name": "my_function", "parameters": {"type": "object"}}'
    },
)
_CHOSEN_FUNCTION = Form(
    known=("type", "name"), required={"name": '{"type": "function", "name": "my_function"}'}
)
_TOOL = Form(
    types={
        "function": _FUNCTION,
        "namespace": Form(
            known=("type", "name", "description"),
            inside={"tools": Form(types={"function": _FUNCTION})},
        ),
    }
)


class InputTokensRequest(Body):
    """The fields from which the prompt of a response is made."""

    forms: ClassVar[Mapping[str, Form]] = {
        "input": _ITEM,
        "tools": _TOOL,
        # `responses_tools.py` refuses other types.
        "tool_choice": Form(types={"function": _CHOSEN_FUNCTION}),
        "text": Form(inside={"format": _FORMAT}),
        "reasoning": Form(known=("summary", "generate_summary")),
    }

    input: ResponseInput = None
    instructions: str | None = None  # a system message before the input
    tools: Items[dict[str, Any]] | None = None
    tool_choice: ToolChoice = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    truncation: Literal["auto", "disabled"] | None = "disabled"
    chat_template_kwargs: dict[str, Any] | None = None
    parallel_tool_calls: StrictBool | None = True
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None


class ResponsesRequest(InputTokensRequest, SamplingBody):
    """An input to be answered."""

    constraints: ClassVar[str] = "text.format or structured_outputs"

    forms: ClassVar[Mapping[str, Form]] = {
        **InputTokensRequest.forms,
        "stream_options": STREAM_OPTIONS,
    }

    input: ResponseInput
    max_output_tokens: Annotated[Int64, Field(ge=1)] | None = None
    include: Items[Includable] | None = None
    top_logprobs: Int64 | None = None
    stop: Strings = None
    structured_outputs: dict[str, Any] | None = None
    include_reasoning: StrictBool | None = True
    return_tokens_as_token_ids: StrictBool | None = None
    background: StrictBool | None = False
    prompt: dict[str, Any] | None = None  # a prompt stored on the server; refused later
    previous_input_messages: Items[Any] | None = None
    enable_response_messages: StrictBool | None = False
    max_tool_calls: Int64 | None = None  # of tools that the server would call itself
    stream_options: dict[str, Any] | None = None  # the last event has the usage anyway
    # Only repeated in the response.
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.top_logprobs) or LOGPROBS in (self.include or ())

    @property
    def wants_encoded_thoughts(self) -> bool:
        return ENCODED_THOUGHTS in (self.include or ())
