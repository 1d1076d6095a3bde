"""The bodies of ``POST /v1/messages`` and ``POST /v1/messages/count_tokens``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, model_validator

from quire.server.forms import Form
from quire.server.protocol.common import (
    JSON_OBJECT,
    NO_TOOL_SEARCH,
    Body,
    Int64,
    Items,
    ReasoningEffort,
    SamplingBody,
    TextOrParts,
)
from quire.shown import shown

Share = Annotated[StrictFloat, Field(ge=0, le=1)]


class AnthropicMessage(BaseModel):
    """One turn; its content blocks are parsed by `messages_input.py`."""

    model_config = ConfigDict(extra="allow")

    role: Literal["user", "assistant", "system"]
    content: TextOrParts


class AnthropicTool(BaseModel):
    """A tool that the model may call; those that would run on Anthropic's server are refused."""

    model_config = ConfigDict(extra="allow")

    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_clients(cls, given: Any) -> Any:
        """Refuse built-in tools by type: their other fields are not known here."""
        kind = given.get("type") if isinstance(given, dict) else None
        if isinstance(kind, str) and kind != "custom":
            raise ValueError(f"{no_built_in_tool(kind)}.")
        return given


def no_built_in_tool(name: str) -> str:
    """Why a tool that is not the client's is refused."""
    return (
        f"the server has no built-in tool {shown(name)}; define a tool with an input_schema, and "
        "run it in your program"
    )


class AnthropicToolChoice(BaseModel):
    """Whether to call tools, and which."""

    model_config = ConfigDict(extra="allow")

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: StrictBool | None = None


class Thinking(BaseModel):
    """Whether to think before the answer."""

    model_config = ConfigDict(extra="allow")

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[Int64, Field(ge=1)] | None = None


class OutputConfig(BaseModel):
    """The form of the answer, and how much to think."""

    model_config = ConfigDict(extra="allow")

    format: dict[str, Any] | None = None
    effort: ReasoningEffort | None = None


_FORMAT = Form(
    types={
        "text": Form(known=("type",)),
        "json_object": JSON_OBJECT,
        "json_schema": Form(
            known=("type", "schema"),
            required={"schema": '{"type": "json_schema", "schema": {"type": "object"}}'},
        ),
        "structural_tag": Form(known=("type",)),  # not of this API
    }
)
_BLOCK_KEYS = ("type", "cache_control")
_TEXT = Form(known=(*_BLOCK_KEYS, "text", "citations"))
_TEXTS = Form(types={"text": _TEXT})
_BLOCK = Form(
    types={
        "text": _TEXT,
        "thinking": Form(known=(*_BLOCK_KEYS, "thinking", "signature")),
        "redacted_thinking": Form(known=(*_BLOCK_KEYS, "data")),
        "tool_use": Form(known=(*_BLOCK_KEYS, "id", "name", "input", "caller")),
        "tool_result": Form(
            known=(*_BLOCK_KEYS, "tool_use_id", "is_error"), inside={"content": _TEXTS}
        ),
    }
)


class CountTokensRequest(Body):
    """The fields from which the prompt of a message is made."""

    forms: ClassVar[Mapping[str, Form]] = {
        "messages": Form(inside={"content": _BLOCK}),
        "system": _TEXTS,
        # Those in ``known`` have no effect: forced calls follow their schema without ``strict``.
        "tools": Form(
            known=("cache_control", "strict", "eager_input_streaming", "allowed_callers"),
            refused={"input_examples": "write the examples into the description"},
            switches={"defer_loading": NO_TOOL_SEARCH},
        ),
        "tool_choice": Form(),
        "thinking": Form(known=("display",)),
        "output_config": Form(inside={"format": _FORMAT}),
        "output_format": _FORMAT,
    }

    messages: Items[AnthropicMessage]
    system: TextOrParts = None
    tools: Items[AnthropicTool] | None = None
    tool_choice: AnthropicToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: dict[str, Any] | None = None  # earlier name of output_config.format
    chat_template_kwargs: dict[str, Any] | None = None
    # Accepted without effect: every prefix is cached, and there is one location and one speed.
    cache_control: dict[str, Any] | None = None
    inference_geo: str | None = None
    speed: Literal["standard", "fast"] | None = None
    user_profile_id: str | None = None
    workspace_id: str | None = None


class MessagesRequest(CountTokensRequest, SamplingBody):
    """A conversation to be answered, or its last turn to be continued."""

    constraints: ClassVar[str] = "output_config.format"

    max_tokens: Annotated[Int64, Field(ge=1)]
    stop_sequences: Items[str] | None = None
    temperature: Share | None = None
    top_p: Share | None = None
    top_k: Annotated[Int64, Field(ge=0)] | None = None
    diagnostics: dict[str, Any] | None = None  # has no effect
