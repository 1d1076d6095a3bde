from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from quire.tools import Tools, tool_format
from quire.tools.constraint import MustCall, call_text_of, constrained_parser, constraint
from tests.fakes.tool_texts import calls_of, read

RECURSIVE = {
    "type": "object",
    "properties": {"tree": {"$ref": "#/$defs/node"}},
    "required": ["tree"],
    "$defs": {"node": {"type": "object", "properties": {"left": {"$ref": "#/$defs/node"}}}},
}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = Tools({"weather": CITY, "walk": RECURSIVE, "stop": {}})


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "parameters": arguments}


@pytest.mark.parametrize(
    ("value", "is_allowed"),
    [
        ([call("weather", city="Oslo")], True),
        ([call("weather", city="Oslo"), call("walk", tree={"left": {}})], True),
        ([call("stop", anything=1)], True),
        ([], False),
        ([call("weather")], False),
        ([call("fly")], False),
        ([call("walk", tree={"left": 3})], False),
        ([{"name": "stop"}], False),
    ],
)
def test_a_list_of_calls_obeys_the_tools_schemas(value: Any, is_allowed: bool) -> None:
    spec = constraint(MustCall(tools=TOOLS))
    assert spec.kind == "json"
    assert jsonschema.Draft202012Validator(json.loads(spec.source)).is_valid(value) is is_allowed


def test_one_call_only_without_parallel_calls() -> None:
    schema = json.loads(constraint(MustCall(tools=TOOLS, is_parallel=False)).source)
    calls = [call("stop"), call("stop")]
    assert not jsonschema.Draft202012Validator(schema).is_valid(calls)


def test_a_list_of_calls_is_read() -> None:
    parser = constrained_parser(MustCall(tools=TOOLS), None)
    text = json.dumps([call("weather", city="Oslo"), call("stop")])
    assert calls_of(read(parser, list(text))) == [("weather", '{"city": "Oslo"}'), ("stop", "{}")]


def test_a_named_tool_has_its_own_schema_and_all_text_is_its_arguments() -> None:
    named = MustCall(tools=Tools({"weather": CITY}), is_named=True)
    spec = constraint(named)
    assert (spec.kind, json.loads(spec.source)) == ("json", CITY)
    assert calls_of(read(constrained_parser(named, None), list('{"city": "Oslo"}'))) == [
        ("weather", '{"city": "Oslo"}')
    ]


def test_the_models_own_form_is_used_where_text_can_say_it() -> None:
    hermes = tool_format("hermes")
    text = call_text_of(hermes, frozenset({"<|im_end|>"}))
    must = MustCall(tools=TOOLS, call_text=text)
    spec = constraint(must)
    form = json.loads(spec.source)["format"]
    assert spec.kind == "structural_tag" and form["at_least_one"] and not form["stop_after_first"]
    written = [
        one["begin"] + json.dumps(value) + one["end"]
        for one, value in zip(form["tags"], [{"city": "Oslo"}, {"tree": {}}, {}], strict=True)
    ]
    events = read(constrained_parser(must, hermes), list(form["separator"].join(written)))
    assert [name for name, _ in calls_of(events)] == ["weather", "walk", "stop"]

    assert call_text_of(hermes, frozenset({"<tool_call>"})) is None
    assert call_text_of(tool_format("mistral"), frozenset()) is None
    assert call_text_of(None, frozenset()) is None


def test_a_named_tool_in_the_models_own_form_is_one_tag() -> None:
    text = call_text_of(tool_format("hermes"), frozenset())
    must = MustCall(tools=Tools({"weather": CITY}), is_named=True, call_text=text)
    form = json.loads(constraint(must).source)["format"]
    assert form["type"] == "tag" and '"name": "weather"' in form["begin"]
