"""The formats of reasoning by name, and which one a chat template is made for.

Names are the ones that other servers use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quire.near_names import did_you_mean
from quire.reasoning.parser import (
    Grammar,
    Opening,
    ReasoningParser,
    ThoughtTags,
    between_tags,
    grammar_parser,
    harmony,
)
from quire.tools import CallBegins
from quire.tools.formats.harmony import MARKS as HARMONY_MARKS

NO_CALLS = CallBegins()
_TAIL = 200  # characters at a prompt's end that may hold a template's opening of a thought


@dataclass(frozen=True, kw_only=True, slots=True)
class ReasoningFormat:
    """One way to write thoughts."""

    name: str
    grammar: Grammar
    begins: tuple[str, ...]  # any of them begins a thought
    answer_begins: tuple[str, ...]  # the answer begins after any of them; the first can be forced
    marks: tuple[str, ...]  # of which some may be special tokens
    is_usual: bool = False  # an answer begins in a thought, whether a mark says so or not

    def parser(self, opening: Opening, calls: CallBegins = NO_CALLS) -> ReasoningParser:
        """A parser for one answer; ``calls`` are marks of calls that may begin in an unclosed
        thought."""
        return grammar_parser(self.grammar, opening, calls)

    def opening(self, prompt: str) -> Opening:
        """Whether the prompt ends within a thought or after one."""
        tail = prompt[-_TAIL:].rstrip()
        if tail.endswith(self.begins):
            return Opening.IN_THOUGHT
        return Opening.AFTER_THOUGHT if tail.endswith(self.answer_begins) else Opening.UNKNOWN

    def opening_of_prefill(self, text: str) -> Opening:
        """Whether the beginning of an answer, which is to be continued, ends within a thought or
        after one."""
        if _last_of(self.begins, text) > _last_of(self.answer_begins, text):
            return Opening.IN_THOUGHT
        return Opening.AFTER_THOUGHT if text.strip() else Opening.UNKNOWN

    def opening_of_chat(self, prompt: str, begun: str | None) -> Opening:
        """Where the answer begins: by the prompt, or by ``begun``, the answer that is to be
        continued."""
        return self.opening(prompt) if begun is None else self.opening_of_prefill(begun)


def _last_of(marks: tuple[str, ...], text: str) -> int:
    return max(text.rfind(mark) for mark in marks)


def tags_format(name: str, tags: ThoughtTags) -> ReasoningFormat:
    """Thoughts between tags."""
    return ReasoningFormat(
        name=name,
        grammar=between_tags(tags),
        begins=tags.begins,
        answer_begins=tags.ends,
        marks=(*tags.begins, *tags.ends, *(tags.answer or ())),
        is_usual=tags.is_usual,
    )


def _tags(begin: str, end: str, *, is_usual: bool = False) -> ThoughtTags:
    return ThoughtTags(begins=(begin,), ends=(end,), is_usual=is_usual)


_GRANITE = ThoughtTags(
    begins=("Here is my thought process:", "Here's my thought process:", "<think>"),
    ends=("Here is my response:", "Here's my response:", "</think>"),
    answer=("<response>", "</response>"),
)
_ERNIE = ThoughtTags(
    begins=("<think>",),
    ends=("</think>",),
    answer=("<response>", "</response>"),
    is_usual=True,
)
_HUNYUAN = ThoughtTags(begins=("<think>",), ends=("</think>",), answer=("<answer>", "</answer>"))
_FINAL = "<|channel|>final"
_HARMONY = ReasoningFormat(
    name="openai_gptoss",
    grammar=harmony,
    begins=("<|channel|>analysis<|message|>",),
    answer_begins=(
        f"<|end|><|start|>assistant{_FINAL}<|message|>",  # from within a thought
        f"{_FINAL}<|message|>",
        f"{_FINAL} <|constrain|>json<|message|>",
        f"{_FINAL}<|constrain|>json<|message|>",
        f"{_FINAL} json<|message|>",
    ),
    marks=HARMONY_MARKS,
    is_usual=True,  # a header comes before every answer
)
_FORMATS = (
    tags_format("deepseek_r1", _tags("<think>", "</think>", is_usual=True)),
    tags_format("qwen3", _tags("<think>", "</think>")),
    tags_format("mistral", _tags("[THINK]", "[/THINK]")),
    tags_format("seed_oss", _tags("<seed:think>", "</seed:think>")),
    tags_format("granite", _GRANITE),
    tags_format("ernie45", _ERNIE),
    tags_format("hunyuan_a13b", _HUNYUAN),
    _HARMONY,
)
REASONING_FORMATS: Mapping[str, ReasoningFormat] = {one.name: one for one in _FORMATS}
ALIASES: Mapping[str, str] = {
    "glm45": "qwen3",
    "deepseek_v3": "qwen3",
    "kimi_k2": "deepseek_r1",
    "minimax_m2": "deepseek_r1",
    "gpt-oss": "openai_gptoss",
    "gpt_oss": "openai_gptoss",
    "harmony": "openai_gptoss",
}
_TAGS = "tags:"  # followed by the two tags, with a comma between them

# The first format whose texts are all in the template wins; those with marks like others' come
# first.
_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("openai_gptoss", ("<|channel|>",)),
    ("mistral", ("[THINK]",)),
    ("seed_oss", ("<seed:think>",)),
    ("granite", ("Here is my thought process:",)),
    ("granite", ("<response></response>",)),
    ("ernie45", ("<think>", "<response>")),
    ("hunyuan_a13b", ("</think>", "<answer>")),
    ("hunyuan_a13b", ("</think>", "<|extra_0|>")),  # some show only how a user's turn ends
    ("qwen3", ("</think>",)),
)


def reasoning_parser_names() -> list[str]:
    return sorted({*REASONING_FORMATS, *ALIASES})


def reasoning_format(name: str) -> ReasoningFormat:
    """The format of this name; ``tags:<a>,</a>`` makes one of any two tags. ``ValueError`` if
    unknown."""
    if name.startswith(_TAGS):
        begin, _, end = name.removeprefix(_TAGS).partition(",")
        if not begin or not end or begin == end:
            raise ValueError(
                f"the reasoning parser {name!r} needs two tags that differ, as in "
                "tags:<thought>,</thought>"
            )
        return tags_format(name, _tags(begin, end))
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
    return next((name for name, signs in _SIGNS if all(one in template for one in signs)), None)
