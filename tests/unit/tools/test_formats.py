"""Every format: what a model of it writes is read, in whatever pieces it comes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quire.tools import CallBegin, Tools, tool_format
from tests.fakes.tool_texts import (
    DEFINITIONS,
    FORMS,
    NAMES,
    SCHEMA,
    Call,
    calls_of,
    content_of,
    cut,
    dumped,
    read,
)

TOOLS = Tools.of(DEFINITIONS)
IN_TAGS = ("qwen3_coder", "qwen3_coder open", "seed_oss", "glm45")  # values are plain text there
IN_CHANNELS = ("openai", "openai channel", "openai code")
IN_PYTHON = ("pythonic", "llama4_pythonic", "olmo3")

# A surrogate cannot be sent; what a parser looks for may well stand inside of a string.
texts = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
    st.sampled_from(
        ['</tool_call>"', "{\\", "}]", "[TOOL_CALLS]", "a\nb\t\u2028", '\\"', "Zürich 雨 🌧", "'"]
    ),
)
# Which a tag cannot tell from null.
notes = (texts | st.sampled_from(["12", "true", "[1]", '"x"'])).filter(
    lambda s: s.strip() != "null"
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(texts, inner, max_size=2)),
    max_leaves=4,
).filter(
    lambda value: value not in (float("inf"), float("-inf")) and "Infinity" not in dumped(value)
)
arguments = st.fixed_dictionaries(
    {},
    optional={
        "city": texts,
        "days": st.integers(),
        "exact": st.booleans(),
        "places": st.lists(texts, max_size=2),
        "more": st.dictionaries(texts, json_values, max_size=2),
        "note": st.none() | notes,
    },
)
calls_strategy = st.lists(st.tuples(st.sampled_from(NAMES), arguments), min_size=1, max_size=3)
plain = st.text("abc é。,.!?\n", max_size=8)
cuts = st.lists(st.integers(0, 400), max_size=30)

thorough = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def is_writable(form: str, calls: Sequence[Call]) -> bool:
    """Formats without escapes cannot carry everything."""
    text = dumped([one[1] for one in calls])
    if form in IN_TAGS:
        return "</" not in text and "<parameter" not in text
    return form not in IN_CHANNELS or "<|" not in text


def is_kept(form: str) -> bool:
    """White space around calls is no content, except where every message has its marks."""
    return form in IN_CHANNELS


@pytest.mark.parametrize("form", FORMS)
@given(before=plain, calls=calls_strategy, after=plain, places=cuts)
@thorough
def test_calls_are_read_however_the_text_is_cut(
    form: str, before: str, calls: list[Call], after: str, places: list[int]
) -> None:
    if not is_writable(form, calls):
        return
    name, write = FORMS[form]
    text = before + write(calls) + after
    events = read(tool_format(name).parser(TOOLS), cut(text, places))

    assert [(name, json.loads(given)) for name, given in calls_of(events)] == [
        (name, given) for name, given in calls
    ]
    assert content_of(events) == "".join(
        one for one in (before, after) if one.strip() or is_kept(form)
    )
    assert events == read(tool_format(name).parser(TOOLS), [text])


@pytest.mark.parametrize("form", [form for form in FORMS if form not in IN_TAGS + IN_PYTHON])
@given(calls=calls_strategy)
@thorough
def test_arguments_are_the_models_own_text(form: str, calls: list[Call]) -> None:
    if not is_writable(form, calls):
        return
    name, write = FORMS[form]
    events = read(tool_format(name).parser(TOOLS), list(write(calls)))
    assert calls_of(events) == [(name, dumped(given)) for name, given in calls]


@pytest.mark.parametrize("form", FORMS)
def test_content_between_calls_is_kept(form: str) -> None:
    if form in IN_CHANNELS:
        between = "<|channel|>final<|message|> Then: "
    else:
        between = " Then: "
    name, write = FORMS[form]
    first, second = ("get_weather", {"city": "Oslo"}), ("get_time", {"city": "Lima"})
    text = f"First: {write([first])}{between}{write([second])} Done."
    for pieces in ([text], list(text)):
        events = read(tool_format(name).parser(TOOLS), pieces)
        assert content_of(events) == "First:  Then:  Done."
        assert [one[0] for one in calls_of(events)] == ["get_weather", "get_time"]


@pytest.mark.parametrize("form", [form for form in FORMS if form not in IN_PYTHON])
def test_arguments_stream_before_the_call_is_whole(form: str) -> None:
    name, write = FORMS[form]
    text = write([("get_weather", {"city": "a" * 40})])
    parser = tool_format(name).parser(TOOLS)
    events = parser.feed(text[: text.index("aaaa") + 20])
    assert isinstance(events[0], CallBegin) and events[0].name == "get_weather"
    assert "a" * 10 in str(events[1:])


@pytest.mark.parametrize("form", FORMS)
def test_a_call_that_is_cut_off_loses_nothing(form: str) -> None:
    name, write = FORMS[form]
    text = write([("get_weather", {"city": "Reykjavik"})])
    for length in range(len(text)):
        events = read(tool_format(name).parser(TOOLS), [text[:length]])
        assert content_of(events).count("Rey") + sum(
            given.count("Rey") for _, given in calls_of(events)
        ) == text[:length].count("Rey")


@pytest.mark.parametrize("form", FORMS)
def test_text_without_a_call_is_content_as_it_is(form: str) -> None:
    text = '  Use <b> or a[0] < 3, {x}, [1] and {"name": 1} as in f(x).\n'
    for pieces in ([text], list(text)):
        assert read(tool_format(FORMS[form][0]).parser(TOOLS), pieces) == read(
            tool_format("hermes").parser(TOOLS), [text]
        )
        assert content_of(read(tool_format(FORMS[form][0]).parser(TOOLS), pieces)) == text


def first_call(name: str, text: str, tools: Tools = TOOLS) -> tuple[str, Any]:
    ((found, given),) = calls_of(read(tool_format(name).parser(tools), list(text)))
    return found, json.loads(given)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hermes", '<tool_call>{"arguments": {"a": [1]}, "name": "f"}</tool_call>'),
        ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"a\\": [1]}"}</tool_call>'),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": [1]}}}\n</tool_call>'),
        ("hermes", '<tool_call>{"name": "f", "arguments": {"a": [1]}\n</tool_call>'),
        ("hermes", '<tool_call>[{"name": "f", "arguments": {"a": [1]}}]</tool_call>'),
        ("hermes", '<tool_call>{"function": "f", "arguments": {"a": [1]}}</tool_call>'),
        ("hermes", '<tool_call>{"function": {"name": "f"}, "arguments": {"a": [1]}}</tool_call>'),
        ("llama3_json", '{"type": "function", "name": "f", "parameters": {"a": [1]}}'),
        ("llama3_json", '{"type": "function", "function": "f", "parameters": {"a": [1]}}'),
        ("llama3_json", '{"name": "f", "parameters": "{\\"a\\": [1]}"}'),
        ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {"a": [1]}, "id": "abcdefghi"}]'),
        ("mistral", '[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{"a": [1]}'),
        ("llama3_json", '[{"name": "f", "parameters": {"a": [1]}}]'),
        ("llama3_json", ' [ {"name": "f", "parameters": {"a": [1]}} ] '),
        ("granite", '<tool_call>[{"name": "f", "arguments": {"a": [1]}}]'),
        ("granite", ' [{"name": "f", "arguments": {"a": [1]}}]'),
        ("phi4_mini", '[{"name": "f", "arguments": {"a": [1]}}]'),
        ("qwen3_xml", "<tool_call><function=f>\n<parameter=a>\n[1]\n</function></tool_call>"),
        ("qwen3_xml", "<tool_call><function=f>\n<parameter=a>\n[1]\n</tool_call>"),
        ("qwen3_xml", "<function=f><parameter=a>[1]</parameter></function>"),
        ("glm45", "<tool_call>f<arg_key>a</arg_key><arg_value>[1]</arg_value></tool_call>"),
        ("openai", '<|channel|>commentary to=functions.f<|message|>{"a": [1]}'),
        (
            "openai",
            "<|channel|>commentary to=functions.f<|channel|>commentary <|constrain|>json"
            '<|message|>{"a": [1]}<|call|>',
        ),
        (
            "openai",
            '<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{"a": [1]}',
        ),
        ("openai", ' to=functions.f<|channel|>commentary json<|message|>{"a": [1]}<|call|>'),
        (
            "openai",
            "<|channel|>commentary<|channel|>commentary to=functions.f<|message|>"
            '{"a": [1]}<|call|>',
        ),
    ],
)
def test_what_models_also_write_is_read(name: str, text: str) -> None:
    schema = {"properties": {"a": {"type": "array"}}}
    tools = Tools.of([{"type": "function", "function": {"name": "f", "parameters": schema}}])
    events = read(tool_format(name).parser(tools), list(text))
    assert content_of(events) == ""
    assert first_call(name, text, tools) == ("f", {"a": [1]})


@pytest.mark.parametrize(
    ("name", "text", "id"),
    [
        (
            "kimi_k2",
            "<|tool_call_begin|>functions.f:3<|tool_call_argument_begin|>{}",
            "functions.f:3",
        ),
        ("mistral", "[TOOL_CALLS]f[CALL_ID]a1b2c3d4e[ARGS]{}", "a1b2c3d4e"),
        (
            "kimi_k2",
            "<|tool_call_begin|>functions.f<|tool_call_argument_begin|>{}",
            None,
        ),
        ("hermes", '<tool_call>{"name": "f", "arguments": {}}</tool_call>', None),
        ("hermes", '<tool_call>{"id": "a1", "name": "f", "arguments": {}}</tool_call>', "a1"),
        ("hermes", '<tool_call>{"id": 7, "name": "f", "arguments": {}}</tool_call>', "7"),
        ("hermes", '<tool_call>{"id": null, "name": "f", "arguments": {}}</tool_call>', None),
        ("hermes", '<tool_call>{"id": "", "name": "f", "arguments": {}}</tool_call>', None),
        ("hermes", '<tool_call>{"id": true, "name": "f", "arguments": {}}</tool_call>', None),
    ],
)
def test_a_models_own_id_is_kept(name: str, text: str, id: str | None) -> None:
    (begin, *_) = tool_format(name).parser(Tools()).feed(text)
    assert begin == CallBegin(0, "f", id)


@pytest.mark.parametrize("id", ["true", "1.5", '"a\\nb"', "[1]", "null"])
def test_an_id_of_another_kind_is_neither_kept_nor_content(id: str) -> None:
    call = f'{{"id": {id}, "name": "f", "arguments": {{}}}}'
    for name, text in (("hermes", f"<tool_call>{call}</tool_call>"), ("llama3_json", call)):
        begin, *rest = read(tool_format(name).parser(Tools({"f": {}})), [text])
        assert begin == CallBegin(0, "f", None) and content_of(rest) == ""


def test_arguments_may_be_missing() -> None:
    for name, text in (
        ("hermes", '<tool_call>{"name": "f"}</tool_call>'),
        ("hermes", '<tool_call>{"name": "f", "arguments": null}</tool_call>'),
        ("hermes", '<tool_call>{"name": "f", "arguments": ""}</tool_call>'),
        ("hermes", '<tool_call>{"arguments": " ", "name": "f"}</tool_call>'),
        ("qwen3_xml", "<tool_call><function=f></function></tool_call>"),
        ("glm45", "<tool_call>f</tool_call>"),
        ("pythonic", "[f()]"),
        ("openai", "<|channel|>commentary to=functions.f<|message|><|call|>"),
        ("qwen3_xml", "<tool_call><function=f></tool_call>"),
    ):
        assert first_call(name, text, Tools()) == ("f", {})


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "f"}',
        '{"name": "f", "parameters": null}',
        '{"parameters": null, "name": "f"}',
        '{"name": "f", "parameters": ""}',
        '{"type": "function", "function": {"name": "f"}}',
        '[{"name": "f", "parameters": null}]',
        '[{"name": "f"}]',
    ],
)
def test_arguments_of_a_given_tool_may_be_missing_without_marks(text: str) -> None:
    assert first_call("llama3_json", text, Tools({"f": {}})) == ("f", {})
    for tools in (Tools(), Tools({"g": {}})):
        events = read(tool_format("llama3_json").parser(tools), list(text))
        assert (content_of(events), calls_of(events)) == (text, [])


CITY = '{"city": "Oslo"}'
DESCRIBED = '"name": "get_time", "description": "The time", "parameters": {"city": "Oslo"}'


@pytest.mark.parametrize(
    "text",
    [
        f"{{{DESCRIBED}}}",
        f"<|python_tag|>{{{DESCRIBED}}}",
        f'<|python_tag|>{{"description": "The time", {DESCRIBED}}}',
        f'{{"type": "function", "function": {{{DESCRIBED}}}}}',
        f'[{{"function": {{{DESCRIBED}}}}}]',
        DESCRIBED.replace('{"city": "Oslo"}', json.dumps(CITY)).join(("{", "}")),
    ],
)
def test_a_call_may_say_more_of_its_tool(text: str) -> None:
    """What it says is content."""
    events = read(tool_format("llama3_json").parser(TOOLS), list(text))
    assert read(tool_format("llama3_json").parser(TOOLS), [text]) == events
    assert calls_of(events) == [("get_time", CITY)]
    assert '"description": "The time"' in content_of(events)
    assert "parameters" not in content_of(events) and "python_tag" not in content_of(events)


NO_PARAMETERS: list[Any] = [
    None,
    {},
    {"type": "object"},
    {"type": "object", "additionalProperties": False},
    {"type": "object", "properties": {}},
]


def test_a_definition_without_marks_is_no_call() -> None:
    for function in (
        {"name": "get_time", "description": "The time", "parameters": SCHEMA},
        {"name": "get_time", "description": "The time"},
        *(
            {"name": "get_time", "description": "The time", "parameters": parameters}
            for parameters in NO_PARAMETERS
        ),
    ):
        for value in (function, [function], {"type": "function", "function": function}):
            text = json.dumps(value)
            events = read(tool_format("llama3_json").parser(TOOLS), list(text))
            assert (content_of(events), calls_of(events)) == (text, [])


def test_a_list_of_calls_leaves_no_brackets() -> None:
    text = '[{"name": "f", "parameters": {"x": "["}}, {"name": "f"}]\nDone [1].'
    events = read(tool_format("llama3_json").parser(Tools({"f": {}})), list(text))
    assert calls_of(events) == [("f", '{"x": "["}'), ("f", "{}")]
    assert content_of(events) == "\nDone [1]."


def test_plain_values_become_what_the_schema_says() -> None:
    text = "<tool_call><function=get_weather>" + "".join(
        f"<parameter={key}>{value}</parameter>"
        for key, value in {"city": "12", "days": "3", "exact": "True", "places": "['a', 'b']",
                           "more": "no JSON", "unknown": "7"}.items()
    )  # fmt: skip
    assert first_call("qwen3_coder", text + "</function></tool_call>")[1] == {
        "city": "12",
        "days": 3,
        "exact": True,
        "places": ["a", "b"],
        "more": "no JSON",
        "unknown": "7",
    }


OPTIONAL = {"anyOf": [{"type": "string"}, {"type": "null"}]}
NODE = {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/Node"}]}


@pytest.mark.parametrize("form", ["qwen3_coder", "glm45"])
@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (OPTIONAL, "12345", "12345"),
        (OPTIONAL, "true", "true"),
        (OPTIONAL, '{"a": 1}', '{"a": 1}'),
        (OPTIONAL, '"said"', '"said"'),
        (OPTIONAL, "null", None),
        ({"type": ["string", "null"]}, "12", "12"),
        ({"oneOf": [{"type": "null"}, {"type": "string"}]}, "1.5", "1.5"),
        ({"allOf": [{"type": "string"}, {"minLength": 1}]}, "1", "1"),
        ({"type": "string", "nullable": True}, "7", "7"),
        ({"type": "string", "nullable": True}, "null", None),
        ({"enum": ["1", "2", None]}, "1", "1"),
        ({"enum": [1, 2]}, "1", 1),
        ({"const": "5"}, "5", "5"),
        ({"$ref": "#/$defs/Name"}, "5", "5"),
        ({"$ref": "#/$defs/C%6Funt"}, "5", 5),
        ({"$ref": "#/$defs/Count"}, "5", 5),
        (NODE, "5", 5),
        ({"$ref": "#/$defs/gone"}, "5", "5"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "12", 12),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "1.5", "1.5"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "12.0", 12),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "None", None),
        ({"format": "date"}, "20240101", "20240101"),
        ({"minimum": 0}, "5", 5),
        ({"default": 5, "title": "X"}, "7", 7),
        ({"type": "number"}, "NaN", "NaN"),
        ({"type": "object"}, '{"a": NaN}', '{"a": NaN}'),
        ({"type": "object"}, '{"a": "one\ntwo\t"}', {"a": "one\ntwo\t"}),
        ({"type": "integer"}, "1_000", 1000),
        ({"type": "integer"}, "1,234", "1,234"),
        ({"type": "int"}, "1_000", 1000),
        ({"type": "int"}, "1,234", "1,234"),
        ({"type": "float"}, "1_0.5", 10.5),
        ({"type": "bool"}, "True", True),
        ({"type": "list"}, "['a', 'b']", ["a", "b"]),
        ({"type": ["tuple", "null"]}, "('a', 1)", ["a", 1]),
        ({"type": "dict"}, "{'a': 1}", {"a": 1}),
        ({"type": "any"}, "[None, True]", [None, True]),
        ({"type": "any"}, "12", 12),
        ({"type": ["number", "null"]}, "12,5", "12,5"),
        ({"type": "boolean"}, "True,", "True,"),
        ({"type": "object"}, '{"a": 1},', '{"a": 1},'),
        ({"type": "object"}, "{'a': 1}", {"a": 1}),
        ({"type": "array"}, "'a', 'b'", ["a", "b"]),
    ],
)
def test_a_value_is_of_a_kind_that_its_schema_admits(
    form: str, schema: dict[str, Any], text: str, value: Any
) -> None:
    definitions = {"Name": {"type": "string"}, "Count": {"type": "integer"}, "Node": NODE}
    tools = Tools({"f": {"properties": {"x": schema}, "$defs": definitions}})
    _, write = FORMS[form]
    ((_, given),) = calls_of(
        read(tool_format(form).parser(tools), list(write([("f", {"x": text})])))
    )
    assert strict(given) == {"x": value}


NUMBER = {"type": "number"}
INTEGER = {"properties": {"x": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$defs": {"Node": INTEGER}, "$ref": "#/$defs/Node"}, 3),
        ({"allOf": [INTEGER, {"required": ["x"]}]}, 3),
        ({"anyOf": [INTEGER, {"properties": {"y": {"type": "string"}}}]}, 3),
        ({"oneOf": [INTEGER, {"properties": {"x": {"type": "string"}}}]}, 3),
        ({"anyOf": [{"$ref": "#/$defs/Node"}], "$defs": {"Node": INTEGER}}, 3),
        ({"additionalProperties": {"type": "number"}}, 3),
        ({"properties": {"x": {"type": "string"}}, "additionalProperties": INTEGER}, "3"),
        ({"additionalProperties": False}, "3"),
        ({"patternProperties": {"^x": {"type": "string"}}, "additionalProperties": NUMBER}, "3"),
        ({**INTEGER, "patternProperties": {"^y": {}}}, 3),
        ({"$ref": "#"}, "3"),
        ({"allOf": [{"$ref": "#"}, {"$ref": "#"}], **INTEGER}, 3),
    ],
)
def test_a_parameter_is_found_wherever_the_schema_has_it(
    schema: dict[str, Any], value: Any
) -> None:
    _, write = FORMS["qwen3_coder"]
    text = write([("f", {"x": "3"})])
    assert first_call("qwen3_coder", text, Tools({"f": schema})) == ("f", {"x": value})


def strict(text: str) -> Any:
    """What JSON says that every client can read."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_schema_whose_references_branch_is_looked_at_once() -> None:
    """Each definition names the next one twice: by paths there would be 2 ** 60."""
    branches = {
        f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]}
        for i in range(60)
    }
    schema = {"properties": {"x": {"$ref": "#/$defs/d0"}}, "$defs": branches}
    assert Tools({"f": schema}).kinds("f", "x") == {"string"}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('"a\nb\tc"', "a\nb\tc"),
        ("'a\nb\r'", "a\nb\r"),
        ('{"a": "one\ntwo"}', {"a": "one\ntwo"}),
        ("{'a': (1, None)}", {"a": [1, None]}),
        ("{'a': true, 'b': [null, False]}", {"a": True, "b": [None, False]}),
        ("{'null': 'true'}", {"null": "true"}),
        ("[{'a': 1}, false]", [{"a": 1}, False]),
    ],
)
def test_arguments_in_python_become_strict_json(written: str, value: Any) -> None:
    text = f"[get_weather(city={written})]"
    ((_, given),) = calls_of(read(tool_format("pythonic").parser(TOOLS), list(text)))
    assert strict(given) == {"city": value}


@pytest.mark.parametrize("written", ["NaN", "{'a': NaN}", "{'a': nil}", "[true, null()]"])
def test_a_value_that_json_does_not_have_makes_no_call(written: str) -> None:
    text = f"[get_weather(days={written})]"
    assert content_of(read(tool_format("pythonic").parser(TOOLS), list(text))) == text


@pytest.mark.parametrize("unclosed", ["<parameter=days>\n3", "<parameter=days>\n3\n</parameter>"])
def test_a_tag_within_a_line_ends_no_value(unclosed: str) -> None:
    value = "write <parameter=x> and </function> so"
    text = f"<function=get_weather>\n<parameter=city>\n{value}\n{unclosed}\n</function>"
    assert first_call("qwen3_coder", text)[1] == {"city": value, "days": 3}


def test_an_empty_value_may_stay_open_too() -> None:
    text = "<function=get_weather>\n<parameter=city>\n<parameter=days>\n3\n</function>"
    assert first_call("qwen3_coder", text)[1] == {"city": "", "days": 3}


@pytest.mark.parametrize("name", ["granite", "phi4_mini"])
def test_a_list_without_its_mark_is_read_only_at_the_beginning_and_of_known_tools(
    name: str,
) -> None:
    call = '[{"name": "get_weather", "arguments": {"city": "Oslo"}}]'
    events = read(tool_format(name).parser(TOOLS), list(f"{call} Done."))
    assert [one[0] for one in calls_of(events)] == ["get_weather"]
    assert content_of(events) == " Done."
    for text in (f"See {call}", call.replace("get_weather", "fly"), ' [1, {"name": 2}] is'):
        assert content_of(read(tool_format(name).parser(TOOLS), list(text))) == text


def test_an_object_without_marks_is_a_call_only_of_a_known_tool() -> None:
    for text in (
        '{"name": "Ann", "parameters": {"age": 3}}',
        '{"age": 3, "name": "get_weather", "parameters": {}}',
        '{"name": "get_weather", "age": 3}',
        '{"name": "Ann", "age": 3, "parameters": {}}',
        '{"name": "get_weather", "parameters": 3}',
        '{"name": "fly"}',
        "[open(file='x')]",
        '{"type": "function", "function": {"name": "fly", "parameters": {}}}',
        '{"type": "function", "function": {"name": "get_weather", "description": "d"}}',
        '{"name": "get_weather", "parameters": "soon"}',
    ):
        for name in ("llama3_json", "pythonic"):
            events = read(tool_format(name).parser(TOOLS), list(text))
            assert content_of(events) == text and calls_of(events) == []
