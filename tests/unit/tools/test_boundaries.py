"""Where calls begin and where values end: JSON that only holds a call, and marks within values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.tools import Content, Tools, tool_format
from tests.fakes.tool_texts import (
    DEFINITIONS,
    Call,
    calls_of,
    content_of,
    cut,
    dumped,
    gpt_oss,
    qwen3_xml,
    read,
)

TOOLS = Tools.of(DEFINITIONS)
OSLO = '{"name": "get_weather", "parameters": {"city": "Oslo"}}'
IN_OSLO = ("get_weather", '{"city": "Oslo"}')
PYTHON_OSLO = "[get_weather(city='Oslo')]"
OUTER = {"qwen3_coder": "tool_call", "qwen3_xml": "tool_call", "seed_oss": "seed:tool_call"}


def told(name: str, text: str) -> tuple[str, list[tuple[str, str]]]:
    """Content and calls, which must be the same however the text is cut."""
    events = read(tool_format(name).parser(TOOLS), [text])
    for size in (1, 3, 7):
        pieces = cut(text, range(size, len(text), size))
        assert read(tool_format(name).parser(TOOLS), pieces) == events
    return content_of(events), calls_of(events)


@pytest.mark.parametrize(
    "text",
    [
        f'Here is the config:\n{{"routes": [{OSLO}, {{"path": "/x"}}]}}',
        f'The tool: {{"a": {OSLO}}}',
        f'{{"a": {OSLO}}}',
        f'{{"name": "fly", "parameters": {OSLO}}}',
        f'{{"age": [1, -2.5e3, null], "name": "get_weather", "parameters": {{}}, "x": {OSLO}}}',
        f'{{"name": "get_weather", "age": [1, -2.5e3, null], "x": {OSLO}}}',
        f'{{"type": "function", "function": {{"name": "fly", "parameters": {OSLO}}}, "x": {OSLO}}}',
        f'{{"type": "function", "function": {{"description": "d", "x": {OSLO}}}}}',
        f'{{"name": "get_weather", "parameters": 3, "x": {OSLO}}}',
        f'{{"name": "get_weather", "parameters": "soon", "x": {OSLO}}}',
        f'[{{"path": "/x"}}, {OSLO}]',
        f'See [{{"path": "/x"}}, {OSLO}].',
        f'[{{"name": "get_weather", "x": [{OSLO}]}}, {OSLO}]',
        f"[1, {OSLO}]",
        f" [true, [{OSLO}]] ",
        f"[[{OSLO}]]",
        f'{{"a": "}} \\" {{", "b": {OSLO}}}',
        f'{{"a": [{OSLO}',
    ],
)
def test_json_that_only_holds_a_call_is_content(text: str) -> None:
    assert told("llama3_json", text) == (text, [])
    if text.count("{") == text.count("}"):
        assert told("llama3_json", f"{text}\n{OSLO}") == (f"{text}\n", [IN_OSLO])


@pytest.mark.parametrize(
    ("text", "content", "num_calls"),
    [
        (f"{OSLO}; {OSLO}", "", 2),
        (f"{OSLO}\n{OSLO}", "", 2),
        (f"<|python_tag|>{OSLO}; {OSLO}", "", 2),
        (f"I will. {OSLO}; {OSLO} So.", "I will.  So.", 2),
        (f"I will: [{OSLO}, {OSLO}]", "I will: ", 2),
        (f"```json\n{OSLO}\n```", "```json\n\n```", 1),
        (f"Use {{ to open, [0, 1) and {{x}}. {OSLO}", "Use { to open, [0, 1) and {x}. ", 1),
        (f"{{{OSLO}}}", "{}", 1),
        (f'{{"city": "Oslo"\n{OSLO}', '{"city": "Oslo"\n', 1),
        (f'{{"cities": ["Oslo"\n{OSLO}', '{"cities": ["Oslo"\n', 1),
        (f'[{{"cities": ["Oslo"}}\n{OSLO}', '[{"cities": ["Oslo"}\n', 1),
        (f'{OSLO}; {{"a": {OSLO}}} {OSLO}', f'; {{"a": {OSLO}}} ', 2),
    ],
)
def test_calls_without_marks_are_read_beside_other_text(
    text: str, content: str, num_calls: int
) -> None:
    assert told("llama3_json", text) == (content, [IN_OSLO] * num_calls)


@given(
    value=st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(-9, 9), st.text(max_size=5))
        | st.just(json.loads(OSLO)),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    indent=st.none() | st.just(2),
)
@settings(max_examples=60, deadline=None)
def test_any_json_is_content_as_a_whole(value: Any, indent: int | None) -> None:
    text = json.dumps({"a": value}, indent=indent)
    assert told("llama3_json", f"{text} {OSLO}") == (f"{text} ", [IN_OSLO])


def test_json_that_is_no_call_is_told_as_it_comes() -> None:
    parser = tool_format("llama3_json").parser(TOOLS)
    assert parser.feed('{"routes": [{"path": "/a') == [Content('{"routes": [{"path": "/a')]


@pytest.mark.parametrize(
    "text",
    [
        f'{{"usage": "{PYTHON_OSLO}"}}',
        f'["so: {PYTHON_OSLO}", 1]',
        f'[{{"usage": "{PYTHON_OSLO}"}}]',
        f"[1, {PYTHON_OSLO}]",
    ],
)
@pytest.mark.parametrize("name", ["pythonic", "llama4_pythonic", "olmo3"])
def test_python_calls_within_json_are_content(name: str, text: str) -> None:
    assert told(name, text) == (text, [])
    assert told(name, f"{text} {PYTHON_OSLO}") == (f"{text} ", [IN_OSLO])


def test_python_calls_are_read_beside_other_brackets() -> None:
    before = "A { and [0, 1) and [see] and {x}: "
    assert told("pythonic", before + PYTHON_OSLO) == (before, [IN_OSLO])


ENDS_OF_CALLS = "A call ends so:\n</function>\n</{outer}>\nThat is all.\n\n</function>x"
VALUES = (
    ENDS_OF_CALLS,
    "</function>",
    "</{outer}>\n",
    "\n</function>\n\n</{outer}>",
    "<{outer}>\n<function=f>\n</function>\n</{outer}>\n",
    "{{}}\n</function>\n<parameter>\n <parameter=x>",
)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", OUTER)
def test_a_value_that_is_closed_may_hold_ends_of_calls(name: str, value: str) -> None:
    value = value.format(outer=OUTER[name])
    call: Call = ("get_weather", {"city": value, "note": value})
    last: Call = ("get_time", {"note": value, "days": 3})
    for calls in ([call], [call, last], [last, call, last]):
        content, found = told(name, f"So: {qwen3_xml(calls, OUTER[name])}\nBye")
        assert content == "So: \nBye"
        assert [(name, json.loads(given)) for name, given in found] == calls


@pytest.mark.parametrize("name", OUTER)
def test_a_value_without_its_end_ends_with_the_call(name: str) -> None:
    outer = OUTER[name]
    first: Call = ("get_weather", {"days": 1, "city": "a"})
    second: Call = ("get_time", {"city": ENDS_OF_CALLS.format(outer=outer)})
    bare: Call = ("get_time", {})
    opened = qwen3_xml([first], outer, end="")
    compact = f"<{outer}><function=get_time><parameter=city>b</parameter></function></{outer}>"
    for text, calls, content in (
        (f"{opened}\nBye", [first], "\nBye"),
        (f"{opened}\n{qwen3_xml([second], outer)}", [first, second], ""),
        (f"{opened}\n{qwen3_xml([bare, second], outer)}", [first, bare, second], ""),
        (f"{opened}{compact}", [first, ("get_time", {"city": "b"})], ""),
        (f"{opened}\n{compact}", [first, ("get_time", {"city": "b"})], ""),
        (f"{opened}\n{opened}\n{qwen3_xml([second], outer)}", [first, first, second], ""),
        (
            opened.replace(f"</{outer}>", "") + qwen3_xml([second], outer),
            [first, second],
            "",
        ),
    ):
        found_content, found = told(name, text)
        assert [(name, json.loads(given)) for name, given in found] == calls
        assert found_content.strip() == content.strip()


def test_a_value_that_is_no_string_may_hold_ends_of_calls_too() -> None:
    value = ["\n</function>\n</tool_call>"]
    text = qwen3_xml([("get_weather", {"places": value})]).replace("\\n", "\n")
    ((_, given),) = told("qwen3_coder", text)[1]
    assert json.loads(given) == {"places": value}


def test_what_is_held_back_comes_out_as_soon_as_it_is_known() -> None:
    parser = tool_format("qwen3_coder").parser(TOOLS)
    parser.feed("<tool_call>\n<function=get_weather>\n<parameter=city>\nA")
    assert parser.feed("\n</function>\nB") == []
    assert "B" in str(parser.feed("</parameter>"))
    assert parser.feed("\n</function>\n</tool_call>\nBye")[-1] == Content("\nBye")


@pytest.mark.parametrize(
    "value",
    ["say <|end|> now", '<|call|>\\" <|return|>"', "<|channel|>final<|message|>", "<|start|>\\"],
)
def test_strings_of_a_call_in_channels_may_hold_marks(value: str) -> None:
    arguments = {"city": value, "places": [value, "x"], "note": value}
    text = gpt_oss([("get_weather", arguments)] * 2) + "<|channel|>final<|message|>Bye"
    assert told("openai", text) == ("Bye", [("get_weather", dumped(arguments))] * 2)


def test_a_mark_ends_a_call_in_channels_whose_string_is_open() -> None:
    text = gpt_oss([("get_weather", {"city": "A"})]).replace('"}', "")
    assert told("openai", text) == ("", [("get_weather", '{"city": "A')])
    after = gpt_oss([("get_time", {"city": "B"})])
    assert told("openai", text + after)[1] == [
        ("get_weather", '{"city": "A'),
        ("get_time", '{"city": "B"}'),
    ]
    assert told("openai", f'{text}<|channel|>final<|message|>He said "no", "so"')[0] == (
        'He said "no", "so"'
    )


@pytest.mark.parametrize(
    ("name", "begin", "unit"),
    [
        ("llama3_json", "", '{"a": ['),
        ("llama3_json", "", '{"a": 1 '),
        ("llama3_json", "", '[{"name": "x" '),
        ("pythonic", "", '["a '),
        ("pythonic", "", '{"a'),
        ("qwen3_coder", "<function=a><parameter=b>", "\n</function>\n</tool_call>"),
        ("qwen3_coder", "", "<function=a><parameter=b>\n\n</function>\n"),
        ("qwen3_coder", "", " <function=a><parameter=b>\n\n</function> x"),
        ("openai", '<|channel|>commentary to=functions.f<|message|>{"a', "<|channel|>"),
        ("openai", '<|channel|>commentary to=functions.f<|message|>{"a', '<|channel|>"'),
    ],
)
def test_long_nonsense_is_read_once(name: str, begin: str, unit: str) -> None:
    """A reader that looked ahead again at every mark would look at billions of characters."""
    text = begin + unit * (60_000 // len(unit))
    events = read(tool_format(name).parser(TOOLS), [text])
    assert read(tool_format(name).parser(TOOLS), cut(text, range(0, len(text), 999))) == events
