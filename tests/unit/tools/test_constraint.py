from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from quire.structured_outputs.check import check
from quire.tools import CallText, Tools, tool_format
from quire.tools.constraint import MustCall, call_text_of, constrained_parser, constraint
from tests.fakes.tool_texts import calls_of, content_of, read
from tests.unit.structured_outputs.grammars import compiled, follows

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
        ([call("stop")], True),
        ([call("stop", anything=1)], False),
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


WHOLE = {"type": "integer", "minimum": 0, "maximum": 9}
NAMED = {"$anchor": "n", **WHOLE}
INNER = {
    "$id": "inner.json",
    "properties": {"a/b": {"$ref": "#/$defs/N"}, "c": {"$ref": "#n"}},
    "required": ["a/b", "c"],
    "$defs": {"N": {"type": "boolean"}, "c": {"$anchor": "n", "type": "null"}},
}
OWN = [
    ({"$defs": {"N": NAMED}, "properties": {"n": {"$ref": "#n"}}}, {"n": 5}, {"n": True}),
    ({"$defs": {"N": {**NAMED, "type": "boolean"}}, "properties": {"n": {"$ref": "#n"}}},
     {"n": True}, {"n": 5}),
    ({"$id": "https://x.org/w.json", "id": "w", "$defs": {"N": WHOLE},
      "properties": {"n": {"$ref": "#/$defs/N"}}}, {"n": 5}, {"n": 10}),
    ({"$defs": {"N": WHOLE, "a/b": INNER}, "properties":
      {"n": {"$ref": "#/$defs/N"}, "i": {"$ref": "#/$defs/a~1b"}}, "required": ["i"]},
     {"n": 5, "i": {"a/b": True, "c": None}}, {"n": 5, "i": {"a/b": 5, "c": None}}),
    ({"properties": {"n": {"const": {"$ref": "#/a"}}, "m": {"enum": [{"$anchor": "n"}]}}},
     {"n": {"$ref": "#/a"}, "m": {"$anchor": "n"}}, {"n": {"$ref": "#/$defs/tool0/a"}}),
    ({"propertyNames": {"$ref": "#/$defs/N"}, "$defs": {"N": {"enum": ["a"]}}}, {"a": 1}, {"b": 1}),
]  # fmt: skip


def test_each_tool_keeps_its_own_definitions_names_and_data() -> None:
    schemas = [{"type": "object", **schema} for schema, _, _ in OWN]
    tools = Tools({f"f{i}": schema for i, schema in enumerate(schemas)})
    spec = constraint(MustCall(tools=tools))
    listed, grammar = json.loads(spec.source), compiled(json=json.loads(spec.source))
    for i, (_, good, bad) in enumerate(OWN):
        for arguments, is_good in ((good, True), (bad, False)):
            alone = jsonschema.Draft202012Validator(schemas[i])
            assert alone.is_valid(arguments) is is_good
            calls = [call(f"f{i}", **arguments)]
            assert jsonschema.Draft202012Validator(listed).is_valid(calls) is is_good, calls
            assert follows(grammar, json.dumps(calls)) is is_good, calls


def test_a_schema_that_is_too_deep_is_left_to_the_check_of_grammars() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(300):
        schema = {"items": schema}
    spec = constraint(MustCall(tools=Tools({"deep": {"type": "object", **schema}})))
    with pytest.raises(ValueError, match=r"nested 30[0-9] deep, the limit is 64"):
        check(spec)


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


@pytest.mark.parametrize("text", [None, CallText(begin="<NAME>", end="</>", separator="")])
@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize(
    "schema",
    [
        {"additionalProperties": True},
        {"description": "anything"},
        {"type": ["object", "null"]},
        {"$ref": "#/$defs/any", "$defs": {"any": {}}},
        {"anyOf": [{"type": "object"}, {"type": "null"}]},
        {"enum": [{"a": 1}, 5, None, "x", [1]]},
    ],
)
def test_arguments_are_an_object_even_if_the_schema_names_no_type(
    schema: dict[str, Any], is_named: bool, text: CallText | None
) -> None:
    must = MustCall(tools=Tools({"f": schema}), is_named=is_named, call_text=text)
    spec = constraint(must)
    grammar = compiled(**{spec.kind: json.loads(spec.source)})
    around = '[{{"name": "f", "parameters": {}}}]'
    if text is not None:
        around = "<f>{}</>"
    elif is_named:
        around = "{}"
    assert follows(grammar, around.format('{"a": 1}'))
    for value in ("null", "5", '"x"', "[1]"):
        assert not follows(grammar, around.format(value)), value


IN_CHANNEL = "<|start|>assistant<|channel|>commentary to=functions.{}<|message|>{}<|call|>"


def test_a_call_in_a_channel_counts_where_a_grammar_waits_for_another_place() -> None:
    required = MustCall(tools=TOOLS)
    named = MustCall(tools=Tools({"weather": CITY}), is_named=True)
    own, other = IN_CHANNEL.format("weather", '{"city": "Oslo"}'), IN_CHANNEL.format("fly", "{}")
    broken = IN_CHANNEL.format("weather", '{"city": "')
    open_other = other.removesuffix("<|call|>")
    preamble = "<|channel|>commentary<|message|>"
    listed = json.dumps([call("walk", tree={})])
    oslo = ("weather", '{"city": "Oslo"}')
    for must, text, calls in (
        (required, own, [oslo]),
        (required, own + listed, [oslo]),
        (required, other + listed, [("walk", '{"tree": {}}')]),
        (required, own + IN_CHANNEL.format("stop", "{}"), [oslo, ("stop", "{}")]),
        (named, own, [oslo]),
        (named, own + '{"city": "Lima"}', [oslo]),
        (named, other + '{"city": "Oslo"}', [oslo]),
        (named, "<|end|>\n" + own, [oslo]),
        (required, open_other + preamble + own, [oslo]),
        (named, open_other + preamble + '{"city": "Oslo"}', [oslo]),
        (named, broken + '{"city": "Oslo"}', [oslo]),
        (required, broken + listed, [("walk", '{"tree": {}}')]),
        (named, broken + own, [oslo]),
        (named, broken, [("weather", '{"city": "')]),
        (required, own + broken, [oslo, ("weather", '{"city": "')]),
    ):
        for pieces in ([text], list(text)):
            events = read(constrained_parser(must, tool_format("openai")), pieces)
            assert (calls_of(events), content_of(events)) == (calls, "")


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


HERMES = tool_format("hermes")
NOW: list[dict[str, Any]] = [
    {"name": "now"},
    {"name": "now", "parameters": None},
    {"name": "now", "parameters": {}},
]


@pytest.mark.parametrize("definition", NOW)
@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize("text", [None, call_text_of(HERMES, frozenset())])
def test_a_tool_described_without_parameters_has_no_arguments(
    definition: dict[str, Any], is_named: bool, text: CallText | None
) -> None:
    tools = Tools.of([{"type": "function", "function": definition}])
    must = MustCall(tools=tools, is_named=is_named, call_text=text)
    assert _arguments_schema(must) == {"type": "object", "additionalProperties": False}
    written = "{ \n }" if is_named else '[{"name": "now", "parameters": { }}]'
    if text is not None:
        written = text.begin.replace("NAME", "now") + "{ }" + text.end
    assert calls_of(read(constrained_parser(must, HERMES), list(written))) == [("now", "{}")]


def _arguments_schema(must: MustCall) -> Any:
    """Of the first tool."""
    source = json.loads(constraint(must).source)
    if must.call_text is not None:
        tag = source["format"] if must.is_named else source["format"]["tags"][0]
        return tag["content"]["json_schema"]
    return source if must.is_named else source["$defs"]["tool0"]


def test_a_call_of_such_a_tool_that_is_not_forced_is_read_as_it_stands() -> None:
    tools = Tools.of([{"type": "function", "function": NOW[0]}])
    text = '<tool_call>\n{"name": "now", "arguments": {"zone": "UTC"}}\n</tool_call>'
    assert calls_of(read(HERMES.parser(tools), list(text))) == [("now", '{"zone": "UTC"}')]


@pytest.mark.parametrize("text", [None, call_text_of(HERMES, frozenset())])
@pytest.mark.parametrize("is_named", [True, False])
def test_of_a_forced_call_that_is_cut_off_anywhere_nothing_is_content(
    is_named: bool, text: CallText | None
) -> None:
    must = MustCall(tools=Tools({"weather": CITY}), is_named=is_named, call_text=text)
    one = '{"city": "Oslo"}'
    if text is not None:
        written = [text.begin.replace("NAME", "weather") + one + text.end] * 2
        whole = text.separator.join(written)
    else:
        whole = one if is_named else json.dumps([call("weather", city="Oslo")] * 2)
    most = 0
    for end in range(len(whole) + 1):
        events = read(constrained_parser(must, HERMES), list(whole[:end]))
        calls = calls_of(events)
        assert content_of(events) == "" and len(calls) >= most
        assert all(one.startswith(arguments) for _, arguments in calls)
        most = len(calls)
    assert calls == [("weather", one)] * (1 if is_named and text is None else 2)
