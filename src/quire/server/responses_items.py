"""The items of a response's output: messages, reasoning, and calls of functions."""

from __future__ import annotations

from typing import Any

from quire.reasoning import Reasoning
from quire.server.answer_form import Answer, ToolCall
from quire.server.responses_thoughts import encoded_thought
from quire.tools import Content

Json = dict[str, Any]
Part = Reasoning | Content | ToolCall
_PREFIXES = {Content: "msg", Reasoning: "rs", ToolCall: "fc"}


def item_id(part: Part, request_id: str, index: int) -> str:
    """The id of the item at this index of the output."""
    own = f"{_PREFIXES[type(part)]}_{request_id}"
    return f"{own}_{index}" if index else own


def item(part: Part, id: str, status: str, logprobs: list[Json], *, encodes_thoughts: bool) -> Json:
    """The item when it is finished."""
    begun = begun_item(part, id) | {"status": status}
    if isinstance(part, ToolCall):
        return begun | {"arguments": part.arguments}
    if encodes_thoughts and isinstance(part, Reasoning):
        begun["encrypted_content"] = encoded_thought(part.text)
    return begun | {"content": [content_part(part, logprobs)]}


def begun_item(part: Part, id: str) -> Json:
    """The item when it begins, without content."""
    common = {"id": id, "status": "in_progress"}
    if isinstance(part, ToolCall):
        call = {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": ""}
        space = {} if part.namespace is None else {"namespace": part.namespace}
        return common | call | space
    if isinstance(part, Reasoning):
        return common | {"type": "reasoning", "summary": [], "content": []}
    return common | {"type": "message", "role": "assistant", "content": []}


def content_part(part: Reasoning | Content, logprobs: list[Json]) -> Json:
    """The content part of a message or reasoning item."""
    if isinstance(part, Reasoning):
        return {"type": "reasoning_text", "text": part.text}
    text = {"type": "output_text", "text": part.text}
    return text | {"annotations": [], "logprobs": logprobs}


def items(
    answer: Answer, request_id: str, status: str, logprobs: list[Json], *, encodes_thoughts: bool
) -> list[Json]:
    """All items of an answer; ``status`` is that of the last, which may have been cut off."""
    parts = answer.parts
    return [
        item(
            part,
            item_id(part, request_id, index),
            status if index == len(parts) - 1 else "completed",
            logprobs,
            encodes_thoughts=encodes_thoughts,
        )
        for index, part in enumerate(parts)
    ]
