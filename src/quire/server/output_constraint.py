"""The constraint on a request's output: fields of the body, and tools that must be called.

Every API's fields become one `GrammarSpec`; errors name the field that the request used.
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
from quire.structured import (
    GUIDED_CONSTRAINTS,
    GUIDED_OPTIONS,
    GrammarSpec,
    to_grammar_spec,
)
from quire.structured_outputs.verify import TooManyGrammars

_FORMATS = ("text", "json_object", "json_schema", "structural_tag")
_SCHEMA_KINDS = ("json", "json_object")
TOOLS = "tools"
_SCHEMA_OF_TEXT = "structural_tag.format.elements[1].json_schema"  # where `_beside_calls` puts it
# Where grammars of `tools.constraint` hold a tool's schema, of one of several or the only tool.
_SCHEMA_OF_TOOL = re.compile(
    r"(?<!\S)(?:structural_tag\.format(?:\.elements\[0\])?(?:\.tags\[(?P<tag>\d{1,6})\])?\.content\.json_schema"
    r"|#/\$defs/tool(?P<definition>\d{1,6})|#/items/anyOf/(?P<call>\d{1,6})/properties/parameters"
    r"|#)(?!\w)"
)


def constraint_field(body: GenerationBody) -> str | None:
    """The field that constrains the answer; 400 for more than one."""
    names = ["structured_outputs", *GUIDED_CONSTRAINTS]
    given = [name for name in names if getattr(body, name) is not None]
    if body.response_format is not None and body.response_format.get("type") != "text":
        given.append("response_format")
    if len(given) > 1:
        raise bad_request(
            f"{given[0]} and {given[1]} both constrain the answer, keep one of them.", given[0]
        )
    return given[0] if given else None


def output_constraint(body: GenerationBody) -> dict[str, Any]:
    """The body's constraint as fields of `SamplingParams`; 400 if it is wrong."""
    name = constraint_field(body)
    if body.guided_decoding_backend is not None:
        _check_backend(body.guided_decoding_backend)
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
            fields = {GUIDED_CONSTRAINTS[name]: value}
        return {"structured_outputs": to_grammar_spec(_with_older_options(fields, body))}
    except ValueError as error:
        raise bad_request(_named(name, str(error)), name) from error


def _check_backend(backend: str) -> None:
    """400 for a name of a backend that does not exist, with or without a constraint."""
    try:
        to_grammar_spec({"json_object": True, "backend": backend})
    except ValueError as error:
        name = "guided_decoding_backend"
        raise bad_request(f"guided_decoding_{error}", name) from error


def _with_older_options(fields: Mapping[str, Any], body: GenerationBody) -> Mapping[str, Any]:
    given = {name: getattr(body, name) for name in GUIDED_OPTIONS}
    for name, value in given.items():
        option = GUIDED_OPTIONS[name]
        if value is None:
            continue
        if fields.get(option) is not None:
            raise ValueError(
                f"structured_outputs.{option} and {name} are both given, keep one of them."
            )
        fields = {**fields, option: value}
    return fields


def constrained(
    params: SamplingParams, form: AnswerForm, chat: ChatCompletionRequest
) -> SamplingParams:
    """The parameters with the grammar of tool calls; 400 if it contradicts the body's constraint.

    If calls are forced, the body's constraint is left to the later turn that gets their results.
    """
    if form.tools is None:
        return params
    wanted, spec = form.grammar, params.grammar
    if wanted is None and spec is not None:
        wanted = _beside_calls(spec, form, chat)
    if wanted is None:
        return params
    params = params.clone()
    params.structured_outputs = wanted
    return params


def _beside_calls(spec: GrammarSpec, form: AnswerForm, chat: ChatCompletionRequest) -> GrammarSpec:
    """A grammar of either tool calls or a text that matches the schema of ``spec``."""
    is_schema, calls = spec.kind in _SCHEMA_KINDS, form.possible_calls
    if not is_schema or calls is None:
        name = constraint_field(chat)
        why = (
            "there is no grammar for this model's calls"
            if is_schema
            else "only a JSON schema can be combined with them"
        )
        raise bad_request(
            f"{name} cannot be combined with tools that the model may call, since {why}: "
            f"leave out {name} or tools, or pass tool_choice 'none' or 'required'.",
            name,
        )
    schema = json.loads(spec.source) if spec.kind == "json" else {"type": "object"}
    text = {"type": "json_schema", "json_schema": schema}
    either = {"type": "or", "elements": [json.loads(calls.source)["format"], text]}
    tag = {"type": "structural_tag", "format": either}
    return replace(
        spec,
        kind="structural_tag",
        source=json.dumps(tag, ensure_ascii=False),
        closes_objects=spec.closes_objects and spec.kind == "json",  # any object is open
    )


async def verify(
    engine: AsyncLLM, params: SamplingParams, name: str | None, schema_places: Sequence[str]
) -> None:
    """400 for a grammar that cannot be enforced; compiling a new one does not block other requests.

    ``schema_places``: where the body has the schemas of the grammar's tools, in order.
    """
    grammar = params.grammar
    if grammar is None:
        return
    try:
        await engine.front.inputs.verify_beside(grammar)
    except TooManyGrammars as error:
        raise too_many(f"{error}.", "grammars_full") from error
    except ValueError as error:
        message = str(error)
        of_tools = _with_places(message, schema_places)
        if name is None or of_tools != message:
            name, message = TOOLS, of_tools
        elif schema_places:
            message = message.replace(_SCHEMA_OF_TEXT, "#")
        raise bad_request(_named(name, message), name) from error


def _with_places(message: str, schema_places: Sequence[str]) -> str:
    """``message`` with tool schemas named by their place in the body, not in the grammar."""

    def place(found: re.Match[str]) -> str:
        number = found["tag"] or found["definition"] or found["call"]
        if number is None:  # the only tool's schema, or the list of calls of several
            return schema_places[0] if len(schema_places) == 1 else found.group()
        index = int(number)
        return schema_places[index] if index < len(schema_places) else found.group()

    return _SCHEMA_OF_TOOL.sub(place, message)


def _of_response_format(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """``response_format`` as fields of `StructuredOutputsParams`."""
    kind = given.get("type")
    if kind == "json_object":
        return {"json_object": True}
    if kind == "structural_tag":
        return {"structural_tag": {key: value for key, value in given.items() if value is not None}}
    if kind != "json_schema":
        raise ValueError(f"type must be one of {', '.join(_FORMATS)}, got {kind!r}.")
    described = given.get("json_schema")
    if not isinstance(described, Mapping) or described.get("schema") is None:
        raise ValueError("json_schema.schema is missing; give the JSON schema of the answer.")
    return {"json": described["schema"]}


def _named(name: str, message: str) -> str:
    return message if message.startswith(name) else f"{name}: {message}"
