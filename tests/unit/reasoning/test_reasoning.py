from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.reasoning import (
    Opening,
    Reasoning,
    detect_reasoning_format,
    reasoning_format,
    reasoning_parser_names,
)
from quire.reasoning.parser import ReasoningParser
from quire.tools import Tools, tool_format
from tests.fakes.tool_texts import calls_of, content_of, cut, gpt_oss
from tests.fakes.tool_texts import read as read_calls

TAGS = {
    "deepseek_r1": ("<think>", "</think>"),
    "qwen3": ("<think>", "</think>"),
    "glm45": ("<think>", "</think>"),
    "mistral": ("[THINK]", "[/THINK]"),
    "granite": ("Here is my thought process:", "Here is my response:"),
    "tags:<why>,</why>": ("<why>", "</why>"),
    "gpt-oss": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
}
MARKS = " ".join(" ".join(one) for one in TAGS.values()).split()
cuts = st.lists(st.integers(0, 200), max_size=30)
plain = st.text("ab <é。\n", min_size=1, max_size=30)


def read(parser: ReasoningParser, pieces: list[str]) -> tuple[str, str]:
    """Reasoning and content."""
    events = [event for piece in pieces for event in parser.feed(piece)] + parser.finish()
    thoughts = (event.text for event in events if isinstance(event, Reasoning))
    answers = (event.text for event in events if not isinstance(event, Reasoning))
    return "".join(thoughts), "".join(answers)


@pytest.mark.parametrize("name", TAGS)
@given(thought=plain, answer=plain, places=cuts)
@settings(max_examples=50, deadline=None)
def test_thought_and_answer_come_apart_however_the_text_is_cut(
    name: str, thought: str, answer: str, places: list[int]
) -> None:
    begin, end = TAGS[name]
    format = reasoning_format(name)
    text = begin + thought + end + answer
    assert read(format.parser(Opening.UNKNOWN), cut(text, places)) == (thought, answer)
    if name != "gpt-oss":
        rest = text.removeprefix(begin)
        assert read(format.parser(Opening.IN_THOUGHT), cut(rest, places)) == (thought, answer)


@pytest.mark.parametrize("name", reasoning_parser_names())
@given(
    pieces=st.lists(st.sampled_from([*MARKS, "x ", "\n", "<"])),
    opening=st.sampled_from(Opening),
    places=cuts,
)
@settings(max_examples=50, deadline=None)
def test_random_marks_lose_no_text(
    name: str, pieces: list[str], opening: Opening, places: list[int]
) -> None:
    pieces = [one if "|" in one or "<" in one else f"{one}w{i};" for i, one in enumerate(pieces)]
    text = "".join(pieces)
    found = read(reasoning_format(name).parser(opening), [text])
    assert read(reasoning_format(name).parser(opening), cut(text, places)) == found
    everything = "".join(found)
    assert [f"w{i};" for i in range(len(pieces)) if f"w{i};" in text] == [
        f"w{i};" for i in range(len(pieces)) if f"w{i};" in everything
    ]


@pytest.mark.parametrize("name", reasoning_parser_names())
def test_text_without_a_thought_is_content(name: str) -> None:
    text = " The answer is <b>3</b>.\n"
    for opening in (Opening.AFTER_THOUGHT, Opening.UNKNOWN):
        is_assumed = reasoning_format(name).name == "deepseek_r1" and opening is Opening.UNKNOWN
        expected = (text, "") if is_assumed else ("", text)
        for pieces in ([text], list(text)):
            assert read(reasoning_format(name).parser(opening), pieces) == expected


def test_a_thought_that_never_ends_is_reasoning() -> None:
    parser = reasoning_format("qwen3").parser(Opening.UNKNOWN)
    assert read(parser, ["<think>Hmm, ", "well </thi"]) == ("Hmm, well </thi", "")


def test_a_later_tag_is_content() -> None:
    parser = reasoning_format("qwen3").parser(Opening.UNKNOWN)
    assert read(parser, ["<think>a</think>b<think>c"]) == ("a", "b<think>c")


@pytest.mark.parametrize(
    ("prompt", "opening"),
    [
        ("<|im_start|>assistant\n<think>\n", Opening.IN_THOUGHT),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", Opening.AFTER_THOUGHT),
        ("<|im_start|>user\nWhat does <think> mean?<|im_end|>\nassistant\n", Opening.UNKNOWN),
    ],
)
def test_the_end_of_the_prompt_tells_where_the_answer_begins(prompt: str, opening: Opening) -> None:
    assert reasoning_format("qwen3").opening(prompt) is opening


def test_an_answer_that_is_continued_tells_it_too() -> None:
    format = reasoning_format("qwen3")
    assert format.opening_of_prefill("<think>First, I") is Opening.IN_THOUGHT
    assert format.opening_of_prefill("<think>a</think>So") is Opening.AFTER_THOUGHT
    assert format.opening_of_prefill("So") is Opening.AFTER_THOUGHT


def test_calls_of_gpt_oss_pass_to_the_parser_of_calls() -> None:
    calls = [("get_weather", {"city": "Oslo"})]
    text = "<|channel|>analysis<|message|>Look it up.<|end|>" + gpt_oss(calls)
    for pieces in ([text], list(text)):
        thought, rest = read(reasoning_format("openai_gptoss").parser(Opening.UNKNOWN), pieces)
        events = read_calls(tool_format("openai").parser(Tools()), [rest])
        assert thought == "Look it up."
        assert calls_of(events) == [("get_weather", '{"city": "Oslo"}')] and not content_of(events)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("...{% if enable_thinking is false %}<think>\n\n</think>{% endif %}", "qwen3"),
        ("[SYSTEM_PROMPT]...[THINK]", "mistral"),
        ("<|start|>assistant<|channel|>final", "openai_gptoss"),
        ("{{ messages }}", None),
    ],
)
def test_a_template_tells_its_format(template: str, name: str | None) -> None:
    assert detect_reasoning_format(template) == name


def test_unknown_names_are_told_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'deepseek_r2'; did you mean deepseek_r1"):
        reasoning_format("deepseek_r2")
    with pytest.raises(ValueError, match="two tags that differ"):
        reasoning_format("tags:<a>")
