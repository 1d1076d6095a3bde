"""Owns the mixture: every skill with its weight, and how skills become training documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from random import Random

from . import chinese, extract, facts, manners, memory, numbers, stories, tool_use
from .base import Message, NoSuchPhrase, Talk, plain

Skill = Callable[[Random, bool], Talk]


def _small(r: Random, tools: bool = False, personal: bool = False) -> Talk:
    """A short turn about anything, to put between others.

    With ``tools`` it asks nothing that a tool could do; ``personal``: nobody says a name in it.
    """
    while True:
        name = r.choices(_FILLERS, _FILLER_WEIGHTS)[0]
        if not (tools and name in _TOOL_WORK) and not (personal and name == "introduction"):
            return draw(r, name, False)


def _between(r: Random) -> list[Message]:
    count = r.choice((0, 0, 1, 1, 2, 3, r.randint(3, 7)))
    if r.random() < 0.04:
        count = r.randint(8, 36)
    messages: list[Message] = []
    for _ in range(count):
        messages += _small(r, personal=True).messages
    return messages


def _recall(r: Random, held: bool) -> Talk:
    return memory.recall(r, held, _between)


def _recall_zh(r: Random, held: bool) -> Talk:
    return chinese.recall(r, held, _between)


def _asked_in_text(r: Random, held: bool) -> Talk:
    name = r.choice(("capital", "country of", "addition", "subtraction", "multiplication", "trivia",
                     "colour", "opposite", "animal", "small talk", "calendar", "repeat", "unknown"))
    item = draw(r, name, held)
    form = r.choice(("Q: {q}\nA:", "Question: {q}\nAnswer:", "User: {q}\nAssistant:", "{q}\nAnswer:"))
    return plain(form.format(q=item.messages[0][1].strip()), " " + item.messages[1][1])


def _no_tool_needed(r: Random, held: bool) -> Talk:
    names = ("capital", "small talk", "recall", "colour", "spelling", "opposite", "capital (zh)",
             "repeat", "addition", "unknown", "story", "not told")
    name = r.choice(names)
    if name == "unknown" and r.random() < 0.5:
        name = "capital"
    return tool_use.no_tool_needed(r, held, lambda q, h: draw(q, name, h))


SKILLS: dict[str, tuple[Skill, float]] = {
    "capital": (facts.capital, 5),
    "country of": (facts.country_of, 3.5),
    "continent": (facts.continent, 2),
    "currency": (facts.currency, 2),
    "is capital": (facts.is_capital, 2),
    "choose capital": (facts.choose_capital, 1),
    "capital, then another": (facts.and_then, 1.2),
    "unknown country": (facts.unknown_capital, 1.2),
    "fact completion": (facts.fact_text, 3.5),
    "question in plain text": (_asked_in_text, 1.5),
    "list completion": (facts.list_text, 1),
    "is colour": (facts.is_colour, 0.8),
    "about a country": (facts.about, 1),
    "trivia": (facts.trivia, 1.5),
    "lists": (facts.listing, 1.2),
    "sentence completion": (facts.sentence_text, 1.2),
    "colour": (facts.colour, 1),
    "opposite": (facts.opposite, 1.2),
    "animal": (facts.animal, 1.2),
    "calendar": (facts.calendar, 1),
    "translation": (facts.translate, 1.5),
    "sentiment": (facts.sentiment, 0.6),
    "addition": (numbers.addition, 6),
    "subtraction": (numbers.subtraction, 6),
    "multiplication": (numbers.multiplication, 4),
    "word problem": (numbers.word_problem, 0.9),
    "division": (numbers.division, 1.2),
    "arithmetic too large": (numbers.too_large, 0.8),
    "arithmetic completion": (numbers.arithmetic_text, 2),
    "comparison": (numbers.compare, 1.2),
    "counting": (numbers.counting, 1.5),
    "neighbour number": (numbers.neighbour, 1),
    "number word": (numbers.number_word, 0.8),
    "spelling": (numbers.spelling, 4),
    "letters": (numbers.letter_count, 1.6),
    "small talk": (manners.small_talk, 2.5),
    "unknown": (manners.unknown, 3),
    "feeling": (manners.feeling, 0.5),
    "nonsense": (manners.nonsense, 0.5),
    "passage completion": (manners.passage, 0.6),
    "repeat": (manners.repeat, 7),
    "secret": (manners.secret, 2),
    "recall": (_recall, 8),
    "recall from system": (memory.told_by_system, 1),
    "introduction": (memory.introduction, 0.8),
    "not told": (memory.not_told, 0.8),
    "reading": (memory.reading, 2.5),
    "JSON extraction": (extract.extract, 9),
    "JSON invention": (extract.invent, 1.2),
    "weather call": (tool_use.weather_call, 3),
    "calculator call": (tool_use.calculator_call, 2),
    "any call": (tool_use.one_call, 4),
    "tool result": (tool_use.with_result, 5),
    "recall after a call": (tool_use.recall_after_call, 1.2),
    "several calls": (tool_use.two_calls, 1.5),
    "tools not needed": (_no_tool_needed, 3),
    "tool missing": (tool_use.wrong_tool, 0.6),
    "story": (stories.told, 1.2),
    "story completion": (stories.story_text, 0.6),
    "capital (zh)": (chinese.capital, 4),
    "fact completion (zh)": (chinese.fact_text, 1.8),
    "arithmetic (zh)": (chinese.arithmetic, 2),
    "small talk (zh)": (chinese.small_talk, 1.2),
    "recall (zh)": (_recall_zh, 3),
    "not told (zh)": (chinese.not_told, 0.5),
    "small facts (zh)": (chinese.small_facts, 1.2),
    "repeat (zh)": (chinese.repeat, 1.8),
    "unknown (zh)": (chinese.unknown, 1),
    "counting (zh)": (chinese.counting, 0.4),
    "weather tool (zh)": (chinese.weather, 1.5),
}
_NAMES = list(SKILLS)
_CUMULATIVE = list(accumulate(weight for _, weight in SKILLS.values()))
_FILLERS = [
    "capital", "country of", "continent", "colour", "opposite", "animal", "calendar", "addition",
    "subtraction", "small talk", "unknown", "repeat", "spelling", "capital (zh)", "small talk (zh)",
    "arithmetic (zh)", "translation", "story", "counting", "comparison", "reading", "introduction",
]
_TOOL_WORK = {"addition", "subtraction", "arithmetic (zh)", "unknown", "comparison", "reading"}
_FILLER_WEIGHTS = [1 if name in ("story", "counting") else 4 for name in _FILLERS]
_PERSONAL = {
    "recall", "recall from system", "not told", "recall after a call", "tools not needed",
    "recall (zh)", "not told (zh)",
}  # fmt: skip
_ALONE = 0.72
"""The share of documents that are one skill's dialogue with nothing around it."""


def draw(r: Random, name: str, held: bool) -> Talk:
    """One dialogue of a skill."""
    while True:
        try:
            return SKILLS[name][0](r, held)
        except NoSuchPhrase:
            continue


def surround(r: Random, item: Talk, personal: bool = False) -> Talk:
    """Put earlier turns and a system prompt before a dialogue, as real ones have them."""
    if item.messages[0][0] == "text":
        return item
    if r.random() > _ALONE:
        earlier: list[Message] = []
        for _ in range(r.choice((1, 1, 2, 2, 3, 4, 6))):
            earlier += _small(r, bool(item.tools), personal).messages
        item = item.before(earlier)
    if not item.system and r.random() < 0.35:
        item = replace(item, system=manners.system_prompt(r))
    return item


def document(r: Random) -> Talk:
    """One training document."""
    name = r.choices(_NAMES, cum_weights=_CUMULATIVE)[0]
    return surround(r, draw(r, name, False), name in _PERSONAL)


def question(r: Random, name: str) -> Talk:
    """One held-out dialogue of a skill, in the surroundings that training has too."""
    return surround(r, draw(r, name, True), name in _PERSONAL)
