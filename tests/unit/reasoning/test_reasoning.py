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
    "granite ": ("<think>", "</think>"),
    "tags:<why>,</why>": ("<why>", "</why>"),
    "gpt-oss": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
}
MARKS = [*" ".join(" ".join(one) for one in TAGS.values()).split(), "<response>", "</response>"]
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
    format = reasoning_format(name.strip())
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


@pytest.mark.parametrize("name", ["qwen3", "mistral", "seed_oss", "granite", "deepseek_r1"])
@pytest.mark.parametrize("opening", [Opening.UNKNOWN, Opening.AFTER_THOUGHT])
def test_an_answer_that_begins_with_the_end_of_a_thought_has_thought_nothing(
    name: str, opening: Opening
) -> None:
    format = reasoning_format(name)
    for end in format.answer_begins:
        for text in (f"{end}\n\nYes", f"\n{end}\n\nYes"):
            for pieces in ([text], list(text)):
                thought, answer = read(format.parser(opening), pieces)
                assert (thought.strip(), answer) == ("", "\n\nYes")


@pytest.mark.parametrize(
    ("rest", "answer"),
    [
        ("<response>Hi</response>", "Hi"),
        ("\n<response>Hi</response>\n", "Hi"),
        ("<response>a</response> is a tag</response>", "a</response> is a tag"),
        ("<response>cut</respon", "cut</respon"),
        ("\nHi</response>", "\nHi</response>"),
    ],
)
def test_tags_around_an_answer_are_no_part_of_it(rest: str, answer: str) -> None:
    text = f"<think>hm</think>{rest}"
    for pieces in ([text], list(text)):
        parser = reasoning_format("granite").parser(Opening.UNKNOWN)
        assert read(parser, pieces) == ("hm", answer)
    without = reasoning_format("granite").parser(Opening.UNKNOWN)
    assert read(without, ["<response>Hi</response>"]) == ("", "<response>Hi</response>")


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


CALL = "<|channel|>commentary to=functions.get_weather<|message|>"
FINAL = "<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("text", "thought", "arguments", "content"),
    [
        (f"{CALL}{{}}<|start|>assistant{FINAL}Done.", "", "{}", "Done."),
        (f"{CALL}{{}}{FINAL}Done.", "", "{}", "Done."),
        (f"{CALL}{FINAL}Done.", "", "{}", "Done."),
        (f"{CALL}{{}}<|channel|>analysis<|message|>hm<|end|>Done.", "hm", "{}", "Done."),
        (f'{CALL}{{"a": "<|channel|>x"}}<|call|>', "", '{"a": "<|channel|>x"}', ""),
        (
            "<|channel|>analysis<|message|>a <|channel|> b<|end|>Done.",
            "a <|channel|> b",
            "",
            "Done.",
        ),
    ],
)
def test_a_message_of_gpt_oss_ends_where_the_next_begins(
    text: str, thought: str, arguments: str, content: str
) -> None:
    for pieces in ([text], list(text)):
        found, rest = read(reasoning_format("openai_gptoss").parser(Opening.UNKNOWN), pieces)
        events = read_calls(tool_format("openai").parser(Tools()), list(rest))
        assert (found, content_of(events)) == (thought, content)
        assert "".join(given for _, given in calls_of(events)) == arguments


@given(
    pieces=st.lists(
        st.sampled_from(
            [CALL, FINAL, *TAGS["gpt-oss"], "<|start|>assistant", "<|call|>", "<|end|>"]
        ),
        max_size=8,
    ),
    places=cuts,
)
@settings(max_examples=100, deadline=None)
def test_thoughts_calls_and_content_of_gpt_oss_lose_nothing(
    pieces: list[str], places: list[int]
) -> None:
    words = [f"w{i};" for i in range(len(pieces))]
    text = "".join(f"{one}{word}" for one, word in zip(pieces, words, strict=True))
    thought, rest = read(
        reasoning_format("openai_gptoss").parser(Opening.UNKNOWN), cut(text, places)
    )
    events = read_calls(tool_format("openai").parser(Tools()), [rest])
    everything = thought + content_of(events) + str(calls_of(events))
    assert [word for word in words if word not in everything] == []


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("...{% if enable_thinking is false %}<think>\n\n</think>{% endif %}", "qwen3"),
        ("[SYSTEM_PROMPT]...[THINK]", "mistral"),
        ("<|start|>assistant<|channel|>final", "openai_gptoss"),
        ("between <think></think> and your response between <response></response>", "granite"),
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


@pytest.mark.parametrize("name", reasoning_parser_names())
def test_what_a_grammar_waits_for_is_what_the_parser_reads(name: str) -> None:
    """Every one of the marks behind which an answer begins, also the one that a budget forces."""
    format = reasoning_format(name)
    for begin in format.begins:
        for end in format.answer_begins:
            text = f"{begin}some thou{end}yes"
            for pieces in ([text], list(text)):
                assert read(format.parser(Opening.UNKNOWN), pieces) == ("some thou", "yes")
