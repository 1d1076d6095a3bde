"""The formats of reasoning by name, and which one a chat template is made for.

Names are the ones that other servers use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from quire.near_names import did_you_mean
from quire.reasoning.parser import (
    Grammar,
    GrammarParser,
    Opening,
    ReasoningParser,
    between_tags,
    harmony,
)
from quire.tools.formats.harmony import MARKS as HARMONY_MARKS

_TAIL = 200  # characters at a prompt's end that may hold a template's opening of a thought


@dataclass(frozen=True, kw_only=True, slots=True)
class ReasoningFormat:
    """One way to write thoughts."""

    name: str
    parser: Callable[[Opening], ReasoningParser]
    begin: str
    answer_begin: str  # behind it the answer begins: what a grammar waits for, a budget forces
    marks: tuple[str, ...]  # of which some may be special tokens

    def opening(self, prompt: str) -> Opening:
        """Whether the prompt ends within a thought or behind one."""
        tail = prompt[-_TAIL:].rstrip()
        if tail.endswith(self.begin):
            return Opening.IN_THOUGHT
        return Opening.AFTER_THOUGHT if tail.endswith(self.answer_begin) else Opening.UNKNOWN

    def opening_of_prefill(self, text: str) -> Opening:
        """The same of an answer that is continued."""
        begun, ended = text.rfind(self.begin), text.rfind(self.answer_begin)
        if begun > ended:
            return Opening.IN_THOUGHT
        return Opening.AFTER_THOUGHT if text.strip() else Opening.UNKNOWN


def _format(
    name: str, grammar: Grammar, begin: str, answer_begin: str, marks: tuple[str, ...] = ()
) -> ReasoningFormat:
    return ReasoningFormat(
        name=name,
        parser=lambda opening: GrammarParser(grammar, opening),
        begin=begin,
        answer_begin=answer_begin,
        marks=marks or (begin, answer_begin),
    )


def tags_format(name: str, begin: str, end: str, *, is_usual: bool = False) -> ReasoningFormat:
    """Thoughts between two tags; ``is_usual``: an answer may begin with one without its tag."""
    return _format(name, between_tags((begin,), (end,), is_usual=is_usual), begin, end)


_GRANITE_BEGINS = ("Here is my thought process:", "Here's my thought process:")
_GRANITE_ENDS = ("Here is my response:", "Here's my response:")
_HARMONY_ANSWER = "<|channel|>final<|message|>"
_FORMATS = (
    tags_format("deepseek_r1", "<think>", "</think>", is_usual=True),
    tags_format("qwen3", "<think>", "</think>"),
    tags_format("mistral", "[THINK]", "[/THINK]"),
    tags_format("seed_oss", "<seed:think>", "</seed:think>"),
    _format(
        "granite",
        between_tags(_GRANITE_BEGINS, _GRANITE_ENDS, is_usual=False),
        _GRANITE_BEGINS[0],
        _GRANITE_ENDS[0],
    ),
    _format(
        "openai_gptoss", harmony, "<|channel|>analysis<|message|>", _HARMONY_ANSWER, HARMONY_MARKS
    ),
)
REASONING_FORMATS: Mapping[str, ReasoningFormat] = {one.name: one for one in _FORMATS}
ALIASES: Mapping[str, str] = {
    "glm45": "qwen3",
    "deepseek_v3": "qwen3",
    "kimi_k2": "qwen3",
    "minimax_m2": "deepseek_r1",
    "gpt-oss": "openai_gptoss",
    "gpt_oss": "openai_gptoss",
    "harmony": "openai_gptoss",
}
_TAGS = "tags:"  # and the two tags, with a comma between them

_SIGNS: tuple[tuple[str, str], ...] = (
    ("openai_gptoss", "<|channel|>"),
    ("mistral", "[THINK]"),
    ("seed_oss", "<seed:think>"),
    ("granite", _GRANITE_BEGINS[0]),
    ("qwen3", "</think>"),
)


def reasoning_parser_names() -> list[str]:
    return sorted({*REASONING_FORMATS, *ALIASES})


def reasoning_format(name: str) -> ReasoningFormat:
    """The format of this name; ``tags:<a>,</a>`` is one of any two tags."""
    if name.startswith(_TAGS):
        begin, _, end = name.removeprefix(_TAGS).partition(",")
        if not begin or not end or begin == end:
            raise ValueError(
                f"the reasoning parser {name!r} needs two tags that differ, as in "
                "tags:<thought>,</thought>"
            )
        return tags_format(name, begin, end)
    found = REASONING_FORMATS.get(ALIASES.get(name, name))
    if found is None:
        names = reasoning_parser_names()
        raise ValueError(
            f"there is no reasoning parser {name!r}{did_you_mean(name, names)}; the parsers are "
            f"{', '.join(names)}, and tags:<thought>,</thought> with any two tags"
        )
    return found


def detect_reasoning_format(template: str) -> str | None:
    """The name of the format that a chat template is made for; None if it shows none."""
    return next((name for name, sign in _SIGNS if sign in template), None)
