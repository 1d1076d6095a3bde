"""Whatever a model writes, nothing is raised, nothing is lost, and cuts make no difference."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.tools import CallBegin, Tools, tool_format
from quire.tools.registry import TOOL_FORMATS
from tests.fakes.tool_texts import (
    DEFINITIONS,
    FORMS,
    Call,
    as_list,
    calls_of,
    content_of,
    cut,
    dumped,
    read,
)

TOOLS = Tools.of(DEFINITIONS)
CALLS: list[Call] = [
    ("get_weather", {"city": 'A "b" {c}', "days": 3}),
    ("get_time", {"places": ["x", "y"]}),
]
TEXTS_OF: dict[str, list[str]] = {name: [] for name in TOOL_FORMATS}
for form, write in FORMS.values():
    TEXTS_OF[tool_format(form).name].append(write(CALLS))
TEXTS_OF["granite"].append(as_list(CALLS))
TEXTS_OF["llama3_json"].append(as_list(CALLS))
TEXTS_OF["openai"].append(
    " to=functions.get_weather<|channel|>commentary<|channel|>commentary json<|message|>{}<|call|>"
)
TEXTS_OF["pythonic"] += [
    "[get_weather(more={'a': true, 'b': [null, False]}, exact=null)]",
    "[get_weather(days=1+1), get_time(), fly(to='x)', [1]), get_weather(city='Oslo')]",
]
TEXTS_OF["olmo3"].append("<function_calls>fly(1)\nget_time(), f()\nget_time()</function_calls>")
OSLO = '{"city": "Oslo"}'
ODD_ARGUMENTS = (
    *(json.dumps(OSLO), f"```json\n{OSLO}\n```", f"```\n{json.dumps(OSLO)}```", '["Oslo"]'),
    *("city: Oslo\n", "null", '"soon"', '{"city": "Oslo"]', "{'city': 'Oslo'}}", ""),
)
for odd in ODD_ARGUMENTS:
    TEXTS_OF["mistral"].append(f"[TOOL_CALLS]get_time[ARGS]{odd}[TOOL_CALLS]get_time[ARGS]{OSLO}")
    for name in ("deepseek_v3", "deepseek_v31", "kimi_k2"):
        TEXTS_OF[name].append(FORMS[name][1](CALLS).replace(dumped(CALLS[0][1]), odd))
TEXTS_OF["llama3_json"] += [
    f'{{"name": "get_time", "description": "d", "parameters": {OSLO}, "strict": true}} {OSLO}',
    f'<|python_tag|>{{"description": "d", "name": "get_time", "parameters": {OSLO}}}',
    f'{{"type": "function", "function": {{"name": "get_time", "x": 1, "parameters": {OSLO}}}}}',
]
PIECES = sorted(
    {
        piece
        for texts in TEXTS_OF.values()
        for text in texts
        for piece in re.findall(r"<[^<>]*>|\[[A-Z_]+\]|\w+|\s|.", text)
    }
    | {"\\", "'", '"', "{", "}", "[", "]", "(", ")", "=", ",", "</", "<|", "\ud7ff", "null"}
)
cuts = st.lists(st.integers(0, 300), max_size=30)
soup = st.lists(st.sampled_from(PIECES), max_size=25)


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """An answer with parts put in, left out or written twice, and words that must not get lost."""
    pieces = re.findall(r"<[^<>]*>|\w+|\s|.", text)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(pieces)))
        change = draw(st.sampled_from(("put", "drop", "repeat", "end")))
        if change == "put":
            pieces.insert(at, draw(st.sampled_from(PIECES)))
        elif change == "drop":
            del pieces[at : at + draw(st.integers(1, 4))]
        elif change == "repeat":
            pieces[at:at] = pieces[max(0, at - 8) : at]
        else:
            del pieces[at + 8 :]
    return with_words("".join(pieces), draw(st.lists(st.integers(0, 40), max_size=4)))


def with_words(text: str, places: list[int]) -> str:
    parts = re.split(r"(\s)", text)
    for number, place in enumerate(sorted(set(places), reverse=True)):
        parts.insert(place, f"zq{number}qz")
    return "".join(parts)


def check(name: str, text: str, places: list[int]) -> None:
    events = read(tool_format(name).parser(TOOLS), [text])
    assert read(tool_format(name).parser(TOOLS), cut(text, places)) == events
    ids = [event.id or "" for event in events if isinstance(event, CallBegin)]
    everything = content_of(events) + str(calls_of(events)) + "".join(ids)
    words = re.findall(r"zq\dqz", text)
    assert [word for word in words if word not in everything] == []
    if not calls_of(events) and name != "openai":
        assert content_of(events) == text
    if tool_format(name).name in ("pythonic", "llama4_pythonic", "olmo3"):
        for _, given in calls_of(events):
            assert isinstance(json.loads(given, parse_constant=refuse), dict)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("name", TOOL_FORMATS)
@given(data=st.data(), places=cuts)
@settings(max_examples=40, deadline=None)
def test_damaged_answers_lose_nothing(name: str, data: st.DataObject, places: list[int]) -> None:
    assert TEXTS_OF[name], f"add answers in {name} to FORMS in tests/fakes/tool_texts.py"
    check(name, data.draw(damaged(data.draw(st.sampled_from(TEXTS_OF[name])))), places)


@pytest.mark.parametrize("name", TOOL_FORMATS)
@given(pieces=soup, words=st.lists(st.integers(0, 20), max_size=3), places=cuts)
@settings(max_examples=40, deadline=None)
def test_random_marks_lose_nothing(
    name: str, pieces: list[str], words: list[int], places: list[int]
) -> None:
    check(name, with_words("".join(pieces), words), places)


@pytest.mark.parametrize("name", TOOL_FORMATS)
@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=60), places=cuts)
@settings(max_examples=30, deadline=None)
def test_any_text_passes(name: str, text: str, places: list[int]) -> None:
    check(name, text, places)


@pytest.mark.parametrize(
    ("name", "text", "content"),
    [
        ("hermes", "<tool_call>Let me see.</tool_call>", "<tool_call>Let me see.</tool_call>"),
        ("hermes", '<tool_call>{"name": 3, "arguments": {}}', None),
        ("hermes", '<tool_call>{"name": "\\ud800", "arguments": {}}', None),
        ("hermes", '<tool_call>{"name": "f", "arguments": ', None),
        ("pythonic", "[get_weather(city=open('x'))]", None),
        ("pythonic", "[get_weather('Paris')]", None),
        ("mistral", "[TOOL_CALLS] nothing to call", None),
        ("deepseek_v3", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f{}", None),
        ("openai", "<|channel|>commentary to=browser.open<|message|>x", None),
        ("openai", "<|start|>user<|message|>x", None),
        ("hermes", '<tool_call>{"name":"f","arguments":{},"why":"so"}</tool_call>', '"why":"so"'),
    ],
)  # fmt: skip
def test_what_is_no_call_is_content(name: str, text: str, content: str | None) -> None:
    events = read(tool_format(name).parser(TOOLS), list(text))
    assert content_of(events) == (text if content is None else content)


def test_a_broken_second_call_leaves_the_first() -> None:
    text = "[get_weather(city='Oslo'), get_weather(city=)]"
    events = read(tool_format("pythonic").parser(TOOLS), list(text))
    assert calls_of(events) == [("get_weather", '{"city": "Oslo"}')]
    assert content_of(events) == ", get_weather(city=)"


@pytest.mark.parametrize(
    ("name", "text", "content", "tools"),
    [
        ("pythonic", "[A, unknown(x=1), B]", ", unknown(x=1)", "A B"),
        (
            "pythonic",
            "[A, get_time(1 + 1), f(')', [g(2)]), B, h()]",
            ", get_time(1 + 1), f(')', [g(2)]), h()",
            "A B",
        ),
        (
            "pythonic",
            "[get_weather(days=1+1), f(x), A] So.",
            "get_weather(days=1+1), f(x) So.",
            "A",
        ),
        ("llama4_pythonic", "<|python_start|>[f(x), A]<|python_end|>", "f(x)", "A"),
        ("olmo3", "<function_calls>\nf(x)\nA\ng(1)\nB\n</function_calls>", "f(x)\ng(1)", "A B"),
        ("olmo3", "<function_calls>A, g(1), B</function_calls>", ", g(1)", "A B"),
        ("pythonic", "[A, that is all]", ", that is all]", "A"),
        ("pythonic", "[f(x), A]", "[f(x), A]", ""),
        ("pythonic", "[get_weather(days=1+1), f(x)]", "[get_weather(days=1+1), f(x)]", ""),
        ("pythonic", "[A, f(x, B]", ", f(x, B]", "A"),
    ],
)
def test_odd_calls_of_a_list_leave_the_others(
    name: str, text: str, content: str, tools: str
) -> None:
    calls = {"A": "get_weather(city='Oslo')", "B": "get_time()"}
    read_as = {"A": ("get_weather", '{"city": "Oslo"}'), "B": ("get_time", "{}")}

    def written(short: str) -> str:
        return re.sub(r"\b[AB]\b", lambda match: calls[match[0]], short)

    events = read(tool_format(name).parser(TOOLS), [written(text)])
    assert read(tool_format(name).parser(TOOLS), list(written(text))) == events
    assert calls_of(events) == [read_as[tool] for tool in tools.split()]
    assert content_of(events) == written(content)


def test_arguments_end_at_the_mark_when_their_brackets_do_not_close() -> None:
    text = '<tool_call>{"name": "f", "arguments": {"a": [1</tool_call>\nBye'
    events = read(tool_format("hermes").parser(TOOLS), list(text))
    assert calls_of(events) == [("f", '{"a": [1')]
    assert content_of(events) == "\nBye"


NONSENSE = """
{"parameters":[ {"function": {"function":{ 
\n<parameter= [get_weather(city=[ <tool_call> {"name":" { [ " \\ <｜tool▁call▁begin｜>
<|tool_call_begin|>a <|channel|>a <function=a><parameter=b>
[TOOL_CALLS]a[ARGS]" [TOOL_CALLS]a[ARGS]"\\ [TOOL_CALLS]a[ARGS]["
<|tool_call_begin|>a<|tool_call_argument_begin|>" <|tool_call_begin|>a<|tool_call_argument_begin|>b
<|tool_call_begin|>a<|tool_call_argument_begin|>``` <｜tool▁call▁begin｜>a<｜tool▁sep｜>"\\"
[get_time(),f( [get_time(),f(" [get_time(),get_time(1),f()
{"name":"get_weather","x":[ {"name":"get_weather","x":1,"parameters":
""".split()


@pytest.mark.parametrize("name", TOOL_FORMATS)
@pytest.mark.parametrize("unit", NONSENSE)
def test_long_nonsense_ends(name: str, unit: str) -> None:
    """A reader that began again at every mark would look at its characters billions of times."""
    check(name, unit * (20_000 // len(unit)), [])
