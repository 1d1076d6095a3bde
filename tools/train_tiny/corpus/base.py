"""Owns what every generator shares: dialogue types, phrase templates and the train/held-out split.

A template writes alternatives as ``[a|b|c]``; fields are ``{name}``. A pair (expanded template,
fact) belongs to the held-out set by its hash, and so does every name and number a skill copies:
training never sees a held-out one, and evaluation sees nothing else.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random

HELD_PERCENT = 8

Message = tuple[str, str]
"""A role (``user``, ``assistant``, ``tool``; ``text`` in a plain completion) and its content."""


@dataclass(slots=True, frozen=True)
class Check:
    """How evaluation judges an answer.

    ``exact``: it equals the reference; ``json`` and ``calls``: it parses to the same value;
    ``story``: it is a whole story with all of ``want`` in it; ``ends``: it comes to an end.
    """

    kind: str
    want: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Talk:
    """A dialogue (or a plain completion) whose last message is the one that evaluation checks."""

    messages: list[Message]
    check: Check
    system: str = ""
    tools: tuple[dict, ...] = ()

    def before(self, earlier: Sequence[Message]) -> Talk:
        """The same dialogue with other turns placed in front of it."""
        return replace(self, messages=[*earlier, *self.messages])


def talk(user: str, answer: str) -> Talk:
    """A one-turn dialogue whose answer is checked word for word."""
    return Talk([("user", user), ("assistant", answer)], Check("exact"))


def plain(prompt: str, rest: str) -> Talk:
    """A text to continue, with no chat template around it."""
    return Talk([("text", prompt), ("text", rest)], Check("exact"))


def is_held(key: str, percent: int = HELD_PERCENT) -> bool:
    """Whether ``key`` belongs to the held-out set."""
    return zlib.crc32(f"{key}#quire".encode()) * 2654435761 % 4294967296 % 100 < percent


@cache
def _parts(template: str) -> tuple[str | tuple[str, ...], ...]:
    pieces = re.split(r"\[([^\]]*)\]", template)
    return tuple(p if i % 2 == 0 else tuple(p.split("|")) for i, p in enumerate(pieces))


def expand(r: Random, template: str) -> str:
    """Choose one alternative in each bracket."""
    return "".join(p if isinstance(p, str) else r.choice(p) for p in _parts(template))


class NoSuchPhrase(Exception):
    """No phrasing of this fact lies on the wanted side of the split: draw another fact."""


def ask(r: Random, templates: Sequence[str], held: bool, fact: str, **fields: object) -> str:
    """A phrasing of a question whose pair with ``fact`` lies on the wanted side of the split."""
    for _ in range(60):
        text = expand(r, r.choice(templates))
        if is_held(f"{text}\0{fact}") == held:
            return text.format(**fields)
    raise NoSuchPhrase(fact)


_PREFIXES = (
    "Please tell me: |Quick question: |Hi! |Hello. |Hey, |Hi, |OK. |Okay, |Question: |So, |"
    "Hello! |One more thing: |Now, |Next question: |Can you help me? |I have a question. |"
    "Tell me, |Excuse me, |Well, |Good morning! |Dear assistant, |Great. |Thanks! |Please, |"
    "I am curious. |I forgot: |Do you know? |Be honest: |Alright, |Q: "
).split("|")
_SUFFIXES = (
    " Thanks!| Thank you.| Please.| please| Please answer.| Tell me.| I want to know.|"
    " Answer me.| Thanks| Be quick.| I forgot."
).split("|")


_STARTERS = frozenset(
    "what which where how why when who tell give say write name spell count repeat do does can "
    "could please is are calculate compute add multiply subtract show check get find explain "
    "describe list in on of the hello hi hey search set start look weather time".split()
)


def noisy(r: Random, text: str, keep_case: bool = False) -> str:
    """Vary how a question is typed: lost question marks, lower case, small talk around it."""
    roll = r.random()
    if roll < 0.12:
        text = text.rstrip("?.!")
    elif roll < 0.15:
        text = text.rstrip("?.!") + r.choice(("??", " ?", "!", ".", "?!", "...", ":"))
    roll = r.random()
    if not keep_case and roll < 0.12:
        text = text.lower()
    elif not keep_case and roll < 0.16:
        text = text.upper()
    elif roll < 0.24 and text.split(" ")[0].rstrip(",.:'s").lower() in _STARTERS:
        text = text[0].lower() + text[1:]
    roll = r.random()
    if roll < 0.12:
        text = r.choice(_PREFIXES) + text
    elif roll < 0.17:
        text += r.choice(_SUFFIXES)
    elif roll < 0.19:
        text = r.choice((text + "\n", text + " ", " " + text))
    return text


_ONE_WORD = (
    "[Answer|Reply|Respond] [with|in] [one word|just one word|a single word|only one word].",
    "[Just|Only] [the answer|one word], please.",
    "[Answer|Reply] [briefly|in one word only|with the answer only].",
    "[One word|One word only|Only the answer].",
    "[Give|Tell] me only the answer.",
)
_CAPITALS = (
    "[Answer|Reply|Respond|Write the answer] in [capital letters|capitals|upper case|uppercase].",
    "[Use|Write] only [capital letters|capitals|upper case].",
    "[In|Answer in] [capital letters|ALL CAPS|all capitals], please.",
)


def styled(
    r: Random,
    question: str,
    sentence: str,
    short: str,
    keep_case: bool = False,
    briefly: float = 0.09,
) -> Talk:
    """A question with its full-sentence answer, now and then asked for in one word or capitals."""
    text = noisy(r, question, keep_case)
    roll = r.random()
    if roll < 0.95 - briefly:
        return talk(text, sentence)
    if roll < 0.95:
        order = expand(r, r.choice(_ONE_WORD))
        text = f"{text} {order}" if r.random() < 0.8 else f"{order} {text}"
        return talk(text, short)
    order = expand(r, r.choice(_CAPITALS))
    text = f"{text} {order}" if r.random() < 0.8 else f"{order} {text}"
    return talk(text, sentence.upper())
