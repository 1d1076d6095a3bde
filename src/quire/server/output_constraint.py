"""What a request asks of the form of its answer: fields of the body, and tools that must be called.

All names of all APIs become one `GrammarSpec`; whichever was used is named in errors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from quire.engine.async_engine import AsyncLLM
from quire.sampling_params import SamplingParams
from quire.server.answer_form import AnswerForm
from quire.server.errors import bad_request, too_many
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.common import GenerationBody
from quire.structured import GrammarSpec, to_grammar_spec
from quire.structured_outputs.verify import TooManyGrammars

_OLDER_NAMES = {
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
}
_FORMATS = ("text", "json_object", "json_schema", "structural_tag")
_SCHEMA_KINDS = ("json", "json_object")
TOOLS = "tools"
_SCHEMA_OF_TEXT = "structural_tag.format.elements[1].json_schema"  # as `_beside_calls` has it
# Where the grammars of `tools.constraint` have the schema of one of several tools, or of the only.
_SCHEMA_OF_TOOL = re.compile(
    r"(?<!\S)(?:structural_tag\.format(?:\.elements\[0\])?(?:\.tags\[(?P<tag>\d{1,6})\])?\.content\.json_schema"
    r"|#/\$defs/tool(?P<definition>\d{1,6})|#)(?!\w)"
)


def constraint_field(body: GenerationBody) -> str | None:
    """The field that constrains the answer; 400 for more than one."""
    names = ["structured_outputs", *_OLDER_NAMES]
    given = [name for name in names if getattr(body, name) is not None]
    if body.response_format is not None and body.response_format.get("type") != "text":
        given.append("response_format")
    if len(given) > 1:
        raise bad_request(
            f"{given[0]} and {given[1]} both constrain the answer, keep one of them.", given[0]
        )
    return given[0] if given else None


def output_constraint(body: GenerationBody) -> dict[str, Any]:
    """As fields of `SamplingParams`."""
    name = constraint_field(body)
    if name is None:
        if body.guided_whitespace_pattern is not None:
            raise bad_request(
                "guided_whitespace_pattern needs guided_json; leave it out.",
                "guided_whitespace_pattern",
            )
        return {}
    value = getattr(body, name)
    try:
        if name == "response_format":
            fields = _of_response_format(value)
        elif name == "structured_outputs":
            fields = value
        else:
            fields = {_OLDER_NAMES[name]: value}
        if body.guided_whitespace_pattern is not None:
            fields = {**fields, "whitespace_pattern": body.guided_whitespace_pattern}
        return {"structured_outputs": to_grammar_spec(fields)}
    except ValueError as error:
        raise bad_request(_named(name, str(error)), name) from error


def constrained(
    params: SamplingParams, form: AnswerForm, chat: ChatCompletionRequest
) -> SamplingParams:
    """With the grammar of calls; 400 where two constraints contradict."""
    spec, forced = params.grammar, form.grammar
    if form.tools is None or (spec is None and forced is None):
        return params
    params = params.clone()
    params.structured_outputs = forced if spec is None else _beside_calls(spec, form, chat)
    return params


def _beside_calls(spec: GrammarSpec, form: AnswerForm, chat: ChatCompletionRequest) -> GrammarSpec:
    """Calls or a text of the schema. Where calls must be made, the schema is that of a later turn,
    which answers what they came to."""
    name = constraint_field(chat)
    is_schema = name == "response_format" and spec.kind in _SCHEMA_KINDS
    if is_schema and form.grammar is not None:
        return form.grammar
    calls = form.possible_calls if is_schema else None
    if calls is None:
        raise bad_request(
            f"{name} leaves no room for calls of tools: leave out {name} or tools, or pass "
            "tool_choice 'none'.",
            name,
        )
    schema = json.loads(spec.source) if spec.kind == "json" else {"type": "object"}
    text = {"type": "json_schema", "json_schema": schema}
    either = {"type": "or", "elements": [json.loads(calls.source)["format"], text]}
    tag = {"type": "structural_tag", "format": either}
    return replace(spec, kind="structural_tag", source=json.dumps(tag, ensure_ascii=False))


async def verify(
    engine: AsyncLLM, params: SamplingParams, name: str | None, schema_places: Sequence[str]
) -> None:
    """400 for a grammar that cannot be followed. A new one takes a while, and others go on.

    ``schema_places`` are those of the tools that the grammar has calls of.
    """
    grammar = params.grammar
    if grammar is None:
        return
    try:
        await engine.front.inputs.verify_beside(grammar)
    except TooManyGrammars as error:
        raise too_many(f"{error}.") from error
    except ValueError as error:
        message = str(error)
        of_tools = _with_places(message, schema_places)
        if name is None or of_tools != message:
            name, message = TOOLS, of_tools
        elif schema_places:
            message = message.replace(_SCHEMA_OF_TEXT, "#")
        raise bad_request(_named(name, message), name) from error


def _with_places(message: str, schema_places: Sequence[str]) -> str:
    """The schemas of tools called as the request has them, not as their grammar does."""

    def place(found: re.Match[str]) -> str:
        index = int(found["tag"] or found["definition"] or 0)
        return schema_places[index] if index < len(schema_places) else found.group()

    return _SCHEMA_OF_TOOL.sub(place, message)


def _of_response_format(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """As fields of `StructuredOutputsParams`."""
    kind = given.get("type")
    if kind == "json_object":
        return {"json_object": True}
    if kind == "structural_tag":
        return {"structural_tag": {key: value for key, value in given.items() if value is not None}}
    if kind != "json_schema":
        raise ValueError(f"type must be one of {', '.join(_FORMATS)}, got {kind!r}.")
    described = given.get("json_schema")
    if not isinstance(described, Mapping) or described.get("schema") is None:
        raise ValueError("json_schema.schema must be there, with the JSON schema of the answer.")
    return {"json": described["schema"]}


def _named(name: str, message: str) -> str:
    return message if message.startswith(name) else f"{name}: {message}"
