from __future__ import annotations

import json

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
from quire.tools import CallBegins, Content, Tools, tool_format
from tests.fakes.tool_texts import FORMS, calls_of, content_of, cut, gpt_oss, kimi_k2
from tests.fakes.tool_texts import read as read_calls

TAGS = {
    "deepseek_r1": ("<think>", "</think>"),
    "qwen3": ("<think>", "</think>"),
    "glm45": ("<think>", "</think>"),
    "mistral": ("[THINK]", "[/THINK]"),
    "granite": ("Here is my thought process:", "Here is my response:"),
    "granite ": ("<think>", "</think>"),
    "ernie45": ("<think>", "</think>"),
    "hunyuan_a13b": ("<think>", "</think>"),
    "tags:<why>,</why>": ("<why>", "</why>"),
    "gpt-oss": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
}
TOOL_MARKS = ["<tool_call>", "\n<tool_call>", "<|tool_calls_section_begin|>"]
MARKS = [
    *" ".join(" ".join(one) for one in TAGS.values()).split(),
    *("<response>", "</response>", "<answer>", "\n</answer>", " to=functions.f", *TOOL_MARKS),
]
IN_THOUGHT = [CallBegins(), *(tool_format(name).in_thought for name in ("hermes", "kimi_k2"))]
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
    calls=st.sampled_from(IN_THOUGHT),
    places=cuts,
)
@settings(max_examples=100, deadline=None)
def test_random_marks_lose_no_text(
    name: str, pieces: list[str], opening: Opening, calls: CallBegins, places: list[int]
) -> None:
    pieces = [one if "|" in one or "<" in one else f"{one}w{i};" for i, one in enumerate(pieces)]
    text = "".join(pieces)
    found = read(reasoning_format(name).parser(opening, calls), [text])
    assert read(reasoning_format(name).parser(opening, calls), cut(text, places)) == found
    everything = "".join(found)
    assert [f"w{i};" for i in range(len(pieces)) if f"w{i};" in text] == [
        f"w{i};" for i in range(len(pieces)) if f"w{i};" in everything
    ]


@pytest.mark.parametrize("name", reasoning_parser_names())
def test_text_without_a_thought_is_content(name: str) -> None:
    text = " The answer is <b>3</b>.\n"
    for opening in (Opening.AFTER_THOUGHT, Opening.UNKNOWN):
        is_usual = reasoning_format(name).name in ("deepseek_r1", "ernie45")
        is_assumed = is_usual and opening is Opening.UNKNOWN
        expected = (text, "") if is_assumed else ("", text)
        for pieces in ([text], list(text)):
            assert read(reasoning_format(name).parser(opening), pieces) == expected


def test_a_thought_that_never_ends_is_reasoning() -> None:
    parser = reasoning_format("qwen3").parser(Opening.UNKNOWN)
    assert read(parser, ["<think>Hmm, ", "well </thi"]) == ("Hmm, well </thi", "")


@pytest.mark.parametrize(
    "name",
    ["qwen3", "mistral", "seed_oss", "granite", "deepseek_r1", "ernie45", "hunyuan_a13b"],
)
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
        ("\n\n<response>\nHi\n</response>\n", "Hi"),
        ("\n<response>\n\nHi\n\n</response>", "\nHi\n"),
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


@pytest.mark.parametrize(
    ("name", "opening", "text", "found"),
    [
        (
            "ernie45",
            Opening.IN_THOUGHT,
            "hm\n</think>\n\n<response>\nHi\n</response>\n",
            ("hm\n", "Hi"),
        ),
        ("ernie45", Opening.UNKNOWN, "hm\n</think>\nHi", ("hm\n", "\nHi")),
        (
            "hunyuan_a13b",
            Opening.UNKNOWN,
            "<think>\nhm\n</think>\n<answer>\nHi\n</answer>",
            ("\nhm\n", "Hi"),
        ),
        ("hunyuan_a13b", Opening.AFTER_THOUGHT, "<answer>\nHi\n</answer>", ("", "Hi")),
        ("hunyuan_a13b", Opening.AFTER_THOUGHT, "\n<answer>Hi", ("", "Hi")),
        ("hunyuan_a13b", Opening.AFTER_THOUGHT, "\nHi", ("", "\nHi")),
    ],
)
def test_answers_of_ernie_and_hunyuan_stand_in_tags(
    name: str, opening: Opening, text: str, found: tuple[str, str]
) -> None:
    for pieces in ([text], list(text)):
        assert read(reasoning_format(name).parser(opening), pieces) == found


LINE_CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
KIMI_CALL = kimi_k2([("get_weather", {"city": "Oslo"})])


def with_calls(name: str, tools: str, pieces: list[str]) -> tuple[str, str, list[str]]:
    """Reasoning, content, and the names of the calls."""
    format = tool_format(tools)
    parser = reasoning_format(name).parser(Opening.IN_THOUGHT, format.in_thought)
    thought, rest = read(parser, pieces)
    events = read_calls(format.parser(Tools()), list(rest))
    return thought, content_of(events), [called for called, _ in calls_of(events)]


@pytest.mark.parametrize("name", ["qwen3", "glm45", "deepseek_r1", "kimi_k2"])
@pytest.mark.parametrize(
    ("tools", "text", "thought", "content"),
    [
        ("hermes", f"hm\n{LINE_CALL}", "hm", ""),
        ("hermes", f"\n\n{LINE_CALL}\n", "\n\n", ""),
        ("hermes", f"<think>{LINE_CALL}", "", ""),
        ("qwen3_xml", "hm\n\n<tool_call>\n<function=get_weather>\n</function>", "hm\n", ""),
        ("glm45", "hm\n<tool_call>get_weather\n</tool_call>", "hm", ""),
        ("kimi_k2", f"hm {KIMI_CALL}", "hm ", ""),
        ("kimi_k2", KIMI_CALL.replace("_calls_section", "_call_section"), "", ""),
        ("kimi_k2", "hm<|tool_call_begin|>get_weather<|tool_call_argument_begin|>{}", "hm", ""),
    ],
)
def test_a_call_may_begin_before_the_thought_has_ended(
    name: str, tools: str, text: str, thought: str, content: str
) -> None:
    for pieces in ([text], list(text)):
        assert with_calls(name, tools, pieces) == (thought, content, ["get_weather"])


def test_a_call_may_follow_the_tags_of_an_answer() -> None:
    text = f"hm</think>\n<response>\nLet me see.\n</response>\n\n{LINE_CALL}\n"
    for pieces in ([text], list(text)):
        found = with_calls("ernie45", "hermes", pieces)
        assert found == ("hm", "Let me see.", ["get_weather"])


@pytest.mark.parametrize("form", ["hermes", "qwen3_coder", "seed_oss", "glm45", "kimi_k2"])
@given(thought=plain, days=st.integers(), end=st.sampled_from(["", "</think>"]), places=cuts)
@settings(max_examples=50, deadline=None)
def test_calls_in_thoughts_are_found_however_the_text_is_cut(
    form: str, thought: str, days: int, end: str, places: list[int]
) -> None:
    tools, write = FORMS[form]
    text = f"{thought}\n{write([('get_weather', {'days': days})])}{end}"
    found = with_calls("qwen3", tools, cut(text, places))
    assert found == with_calls("qwen3", tools, [text])
    is_call = not end or form == "kimi_k2"
    assert found[2] == (["get_weather"] if is_call else [])
    assert found[0].rstrip() == (thought.rstrip() if is_call else text.removesuffix(end).rstrip())


@pytest.mark.parametrize(
    ("thought", "answer"),
    [
        (f"I could write {LINE_CALL}", ""),
        (f"It looks so:\n{LINE_CALL}\nSo I do it.", "</think>Yes"),
        (f"{LINE_CALL}\n", "</think>Yes"),
        (f"hm\n{LINE_CALL}\n", f"</think>{LINE_CALL}"),
        ("hm\n<tool_cal", ""),
    ],
)
def test_a_thought_may_talk_of_calls(thought: str, answer: str) -> None:
    for pieces in ([thought + answer], list(thought + answer)):
        found, content, calls = with_calls("qwen3", "hermes", pieces)
        assert found == thought
        assert (content, len(calls)) == ("Yes" if "Yes" in answer else "", LINE_CALL in answer)


def test_a_call_behind_a_sure_mark_is_told_before_the_thought_could_end() -> None:
    format = tool_format("kimi_k2")
    parser = reasoning_format("kimi_k2").parser(Opening.UNKNOWN, format.in_thought)
    assert parser.feed("hm <|tool_calls_section_begin|>")[0] == Reasoning("hm ")
    assert parser.feed("{") == [Content("{")]


def test_without_tools_a_thought_has_no_calls() -> None:
    text = f"hm\n{LINE_CALL}{KIMI_CALL}"
    assert read(reasoning_format("qwen3").parser(Opening.IN_THOUGHT), [text]) == (text, "")


@pytest.mark.parametrize("name", ["kimi_k2", "deepseek_r1"])
def test_what_stands_before_the_end_of_a_thought_was_one(name: str) -> None:
    for pieces in (["hm</think>Answer"], list("hm</think>Answer")):
        assert read(reasoning_format(name).parser(Opening.UNKNOWN), pieces) == ("hm", "Answer")


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


@pytest.mark.parametrize(
    "value",
    [
        "see <|channel|>analysis<|message|>x",
        "see <|start|>assistant<|channel|>analysis<|message|>x<|end|> y",
        f"<|end|>{FINAL}x",
    ],
)
def test_marks_in_the_strings_of_a_call_begin_no_thought(value: str) -> None:
    text = f"<|channel|>analysis<|message|>hm<|end|>{CALL} {json.dumps({'a': value})}<|call|>"
    for pieces in ([text], list(text)):
        thought, rest = read(reasoning_format("openai_gptoss").parser(Opening.UNKNOWN), pieces)
        events = read_calls(tool_format("openai").parser(Tools()), list(rest))
        assert (thought, content_of(events)) == ("hm", "")
        assert calls_of(events) == [("get_weather", json.dumps({"a": value}))]


TO = " to=functions.get_weather"
FIRST = f"{TO}<|channel|>commentary json<|message|>"


@pytest.mark.parametrize(
    ("text", "thought", "calls", "content"),
    [
        (f"{FIRST}{{}}<|call|>", "", ["{}"], ""),
        (f"{FIRST}{{}}", "", ["{}"], ""),
        (f"{FIRST}{{}}<|call|><|start|>assistant{FIRST}[]<|call|>", "", ["{}", "[]"], ""),
        (f"{FIRST}{{}}<|call|><|start|>assistant{FINAL}Done.", "", ["{}"], "Done."),
        (f"{TO}<|channel|>analysis code<|message|>{{}}<|call|>", "", ["{}"], ""),
        (f"{FIRST[:-11]}", "", [], FIRST[:-11]),
        (" to be or not", "", [], " to be or not"),
        (f"<|channel|>commentary{FINAL}Done.", "", [], "Done."),
        (f"<|channel|>commentary to=assistant{FINAL}Done.", "", [], "Done."),
        (
            f"<|channel|>commentary{TAGS['gpt-oss'][0]}hm{TAGS['gpt-oss'][1]}Done.",
            "hm",
            [],
            "Done.",
        ),
        (f"<|channel|>commentary{CALL}{{}}<|call|>", "", ["{}"], ""),
        (f"{TO}<|channel|>commentary{FINAL}{{}}<|call|>", "", ["{}"], ""),
    ],
)
def test_headers_that_gpt_oss_also_writes(
    text: str, thought: str, calls: list[str], content: str
) -> None:
    for pieces in ([text], list(text)):
        found, rest = read(reasoning_format("openai_gptoss").parser(Opening.UNKNOWN), pieces)
        for answer in (rest, text if not thought else rest):
            events = read_calls(tool_format("openai").parser(Tools()), list(answer))
            assert (found, content_of(events)) == (thought, content)
            assert calls_of(events) == [("get_weather", one) for one in calls]


@given(
    begin=st.sampled_from(["", TO, " to=python", " to=", " to", "\n"]),
    pieces=st.lists(
        st.sampled_from(
            [
                *(
                    "",
                    CALL,
                    TO,
                    FINAL,
                    *TAGS["gpt-oss"],
                    "<|start|>assistant",
                    "<|call|>",
                    "<|end|>",
                ),
                *("<|channel|>commentary", "<|channel|>commentary to=assistant"),
            ]
        ),
        max_size=12,
    ),
    places=cuts,
)
@settings(max_examples=100, deadline=None)
def test_thoughts_calls_and_content_of_gpt_oss_lose_nothing(
    begin: str, pieces: list[str], places: list[int]
) -> None:
    words = [f"w{i};" for i, one in enumerate(pieces) if not one]
    text = begin + "".join(one or f"w{i};" for i, one in enumerate(pieces))
    format = reasoning_format("openai_gptoss")
    thought, rest = read(format.parser(Opening.UNKNOWN), cut(text, places))
    assert (thought, rest) == read(format.parser(Opening.UNKNOWN), [text])
    events = read_calls(tool_format("openai").parser(Tools()), [rest])
    assert read_calls(tool_format("openai").parser(Tools()), cut(rest, places)) == events
    everything = thought + content_of(events) + str(calls_of(events))
    assert [word for word in words if word not in everything] == []


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("...{% if enable_thinking is false %}<think>\n\n</think>{% endif %}", "qwen3"),
        ("[SYSTEM_PROMPT]...[THINK]", "mistral"),
        ("<|start|>assistant<|channel|>final", "openai_gptoss"),
        ("between <think></think> and your response between <response></response>", "granite"),
        ("assistant\\n<response>\\n' ... assistant\\n<think>\\n", "ernie45"),
        ("<think>\\n</think>\\n<answer>\\n", "hunyuan_a13b"),
        ("{{ content + '<|extra_0|>' }}... '<think>\\n\\n</think>\\n'", "hunyuan_a13b"),
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
