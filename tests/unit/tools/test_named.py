"""Formats in which a name stands before its arguments: odd arguments, and where they begin."""

from __future__ import annotations

import json

import pytest

from quire.tools import Tools, tool_format
from tests.fakes.tool_texts import calls_of, content_of, read

CITY = '{"city": "Oslo"}'
IN_NAMED = {
    "mistral": "[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]g[ARGS]{{}}",
    "kimi_k2": (
        "<|tool_calls_section_begin|><|tool_call_begin|>f<|tool_call_argument_begin|>{}"
        "<|tool_call_end|><|tool_call_begin|>g<|tool_call_argument_begin|>{{}}<|tool_call_end|>"
        "<|tool_calls_section_end|>"
    ),
    "deepseek_v31": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>\n"
        "<｜tool▁call▁begin｜>g<｜tool▁sep｜>{{}}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek_v3": (
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n{}<｜tool▁call▁end｜>"
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n{{}}<｜tool▁call▁end｜>"
    ),
}


@pytest.mark.parametrize("name", IN_NAMED)
@pytest.mark.parametrize(
    ("written", "told"),
    [
        (CITY, CITY),
        (json.dumps(CITY), CITY),
        (f" {json.dumps(CITY)}\n", CITY),
        (f"```json\n{CITY}\n```", CITY),
        (f"```{CITY}```", CITY),
        (f"\n```\n{json.dumps(CITY)}\n```\n", CITY),
        (f"```json\n{CITY}", CITY),
        ('["Oslo"]', '["Oslo"]'),
        (f"```json\n[{CITY}]\n```", f"[{CITY}]"),
        ("city=Oslo", "city=Oslo"),
        ("city: Oslo, 3 < 4\n", "city: Oslo, 3 < 4"),
        ("```json\ncity=Oslo\n```", "city=Oslo"),
        ("{'city': 'Oslo'}", "{'city': 'Oslo'}"),
        ('{"city": ["Oslo"}, 1]', '{"city": ["Oslo"}, 1]'),
        ('```\n{"city": "Oslo"]\n```', '{"city": "Oslo"]'),
        ('"soon"', '"soon"'),
        ('"Oslo', '"Oslo'),
        ('"{\\"city\\": 1} or so"', '"{\\"city\\": 1} or so"'),
        ("17", "17"),
        ("null", "{}"),
        ('""', "{}"),
        ('" null "', "{}"),
        ("", "{}"),
        ("```json\n```", "{}"),
    ],
)
def test_arguments_behind_a_name_are_told_whatever_they_are(
    name: str, written: str, told: str
) -> None:
    """And what follows them is read as it is anyway."""
    text = IN_NAMED[name].format(written)
    events = read(tool_format(name).parser(Tools()), [text])
    assert read(tool_format(name).parser(Tools()), list(text)) == events
    assert (calls_of(events), content_of(events)) == ([("f", told), ("g", "{}")], "")


def test_odd_arguments_behind_a_name_that_are_cut_off_are_told_too() -> None:
    for name, form in IN_NAMED.items():
        for written in (json.dumps(CITY)[:-5], "```json\ncity: Os", '```\n{"city": "Os', "[1, 2"):
            text = form[: form.index("{}")] + written
            ((_, given),) = calls_of(read(tool_format(name).parser(Tools()), list(text)))
            assert given == written.removeprefix("```json\n").removeprefix("```\n")


@pytest.mark.parametrize("name", ["kimi_k2", "deepseek_v3", "deepseek_v31"])
def test_a_bracket_too_many_behind_arguments_means_nothing(name: str) -> None:
    text = IN_NAMED[name].format(CITY + "}\n")
    events = read(tool_format(name).parser(Tools()), list(text))
    assert (calls_of(events), content_of(events)) == ([("f", CITY), ("g", "{}")], "")


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("deepseek_v3", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f{}<｜tool▁call▁end｜>"),
        ("mistral", "[TOOL_CALLS]f{}"),
        ("mistral", "[TOOL_CALLS]f {}"),
    ],
)
@pytest.mark.parametrize("fence", ["```json\n{}\n```", "```{}```"])
def test_a_fence_directly_behind_a_name_is_no_part_of_it(name: str, form: str, fence: str) -> None:
    text = form.format(fence.format(CITY))
    events = read(tool_format(name).parser(Tools()), [text])
    assert read(tool_format(name).parser(Tools()), list(text)) == events
    assert (calls_of(events), content_of(events)) == ([("f", CITY)], "")
