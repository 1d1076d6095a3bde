"""Owns recall: what the user said about themselves turns ago, and facts from a short passage."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from . import words
from .base import Check, Message, Talk, ask, expand, noisy, talk
from .countries import COUNTRIES
from .names import code, full_name, gibberish, person, place, word


class Slot(NamedTuple):
    """One thing a user may say about themselves."""

    value: Callable[[Random, bool], str]
    say: tuple[str, ...]
    ask: tuple[str, ...]
    answer: str
    missing: str


def _choice(options: tuple[str, ...]) -> Callable[[Random, bool], str]:
    """A value from the list, or now and then a word that is on no list."""
    return lambda r, held: word(r, held) if r.random() < 0.15 else r.choice(options)


def _memo(r: Random, held: bool) -> str:
    return r.choice((code, code, person, word, gibberish, lambda q, h: q.choice(words.COMMON)))(
        r, held
    )


SLOTS: dict[str, Slot] = {
    "name": Slot(
        lambda r, held: full_name(r, held) if r.random() < 0.08 else person(r, held),
        ("My name is {v}", "I am {v}", "I'm {v}", "Call me {v}", "You can call me {v}",
         "[Hi|Hello|Hey], [I am|I'm|my name is|this is] {v}", "People call me {v}", "my name's {v}",
         "[Hello|Hi]! My name is {v}", "The name is {v}", "They call me {v}", "{v} is my name",
         "Please remember that my name is {v}", "Remember my name: {v}"),
        ("[What is|What's|whats] my name?", "[Do|Can] you [remember|recall|know|tell me] my name?",
         "Who am I?", "[Tell me|Say|Remind me of|Repeat] my name[.|?]", "What did I say my name [was|is]?",
         "What am I called?", "How am I called?", "My name is[ what|?| ...?]",
         "Do you [know|remember] who I am?", "And what is my name?", "So what is my name[| again]?"),
        "Your name is {v}.",
        "You have not told me your name.",
    ),
    "city": Slot(
        place,
        ("I live in {v}", "I am from {v}", "I come from {v}", "My home is in {v}", "My city is {v}",
         "I moved to {v}[| last year]", "I am living in {v}", "My home town is {v}"),
        ("Where do I live?", "[What|Which] city [do I live in|am I from]?", "[What is|What's] my city?",
         "Where am I from?", "Do you [remember|know] where I live?", "Where is my home?",
         "In which city do I live?", "[Tell me|Remind me] where I live."),
        "You live in {v}.",
        "You have not told me where you live.",
    ),
    "age": Slot(
        lambda r, held: str(r.randint(3, 99)),
        ("I am {v} years old", "I'm {v}[| years old]", "My age is {v}", "I turned {v} [today|this year]",
         "I am {v}"),
        ("How old am I?", "[What is|What's] my age?", "[Do you remember|Tell me] how old I am[?|.]",
         "[Tell me|Say|Repeat] my age[.|?]", "Do you know my age?"),
        "You are {v} years old.",
        "You have not told me your age.",
    ),
    "colour": Slot(
        _choice(words.COLOURS),
        ("My [favourite|favorite] [colour|color] is {v}", "I like {v} best[| of all colours]",
         "The [colour|color] I like [most|best] is {v}", "{v} is my [favourite|favorite] [colour|color]"),
        ("[What is|What's] my [favourite|favorite] [colour|color]?",
         "[Which|What] [colour|color] do I like[| best| most]?",
         "[Tell me|Do you remember|Remind me of] my [favourite|favorite] [colour|color][?|.]"),
        "Your favourite colour is {v}.",
        "You have not told me your favourite colour.",
    ),
    "pet": Slot(
        _choice(words.PETS),
        ("I have a {v}", "My pet is a {v}", "I own a {v}", "There is a {v} at my home",
         "I keep a {v} as a pet"),
        ("[What|Which] pet do I have?", "[What|Which] animal do I [have|own|keep]?",
         "[What is|What's] my pet?", "[Tell me|Do you remember] [what|which] pet I have[?|.]"),
        "You have a {v}.",
        "You have not told me about a pet.",
    ),
    "petname": Slot(
        person,
        ("My {p} is [called|named] {v}", "My {p}'s name is {v}", "I have a {p} [called|named] {v}",
         "The name of my {p} is {v}"),
        ("[What is|What's] [my {p}'s name|the name of my {p}]?", "[What|How] is my {p} called?",
         "[Tell me|Do you remember|Say] [my {p}'s name|the name of my {p}][?|.]"),
        "Your {p}'s name is {v}.",
        "You have not told me the name.",
    ),
    "job": Slot(
        _choice(words.JOBS),
        ("I work as a {v}", "My job is {v}", "I am a {v}", "I earn my money as a {v}"),
        ("[What is|What's] my [job|profession]?", "What do I [do|work as]?", "What do I do for a living?",
         "[Tell me|Do you remember] my job[?|.]"),
        "You work as a {v}.",
        "You have not told me your job.",
    ),
    "hobby": Slot(
        _choice(words.HOBBIES),
        ("My hobby is {v}", "I [love|enjoy] {v}", "In my free time I do {v}"),
        ("[What is|What's] my hobby?", "What do I [enjoy|love|do in my free time]?",
         "[Tell me|Do you remember] my hobby[?|.]"),
        "Your hobby is {v}.",
        "You have not told me your hobby.",
    ),
    "food": Slot(
        _choice(words.FOODS),
        ("My [favourite|favorite] food is {v}", "I like to eat {v}", "The food I like best is {v}"),
        ("[What is|What's] my [favourite|favorite] food?", "[Which|What] food do I like[| best]?",
         "What do I like to eat?"),
        "Your favourite food is {v}.",
        "You have not told me your favourite food.",
    ),
    "country": Slot(
        lambda r, held: r.choice(COUNTRIES).name,
        ("My country is {v}", "I was born in {v}", "I grew up in {v}"),
        ("[What is|What's] my country?", "Where was I born?", "[Which|What] country [am I from|was I born in]?",
         "Where did I grow up?"),
        "Your country is {v}.",
        "You have not told me your country.",
    ),
    "friend": Slot(
        person,
        ("My {f} is [called|named] {v}", "My {f}'s name is {v}", "The name of my {f} is {v}",
         "I have a {f} [called|named] {v}"),
        ("[What is|What's] [my {f}'s name|the name of my {f}]?", "[What|How] is my {f} called?",
         "Who is my {f}?"),
        "Your {f}'s name is {v}.",
        "You have not told me the name.",
    ),
}
SLOTS["memo"] = Slot(
    _memo,
    ("[Remember|Please remember|Keep in mind|Note] [this|the word|the number|the code|]: {v}",
     "[Remember|Please remember|Memorise|Keep in mind] the [number|word|code|name|value] {v}",
     "[Remember|Please remember] {v}", "I want you to remember [|this: |the word ]{v}"),
    ("What did I [ask|tell] you to remember?", "[What|Which] [number|word|code|value|name] did I ask "
     "you to remember?", "What [should|do] you remember?", "What was [it|that] again?",
     "[What|Which] [number|word|code] should you remember?", "What was the [number|word|code|value]?"),
    "You asked me to remember {v}.",
    "You have not asked me to remember anything.",
)
_WEIGHTED = ["name"] * 8 + list(SLOTS) * 2
_FRIENDS = ("friend", "brother", "sister", "teacher", "boss", "neighbour", "daughter", "son", "wife")


def draw_facts(r: Random, held: bool, count: int) -> dict[str, dict[str, str]]:
    """Slot -> fields of its phrases, for ``count`` slots."""
    found: dict[str, dict[str, str]] = {}
    while len(found) < count:
        key = r.choice(_WEIGHTED)
        if key in found or (key == "pet" and "petname" in found):
            continue
        fields = {"v": SLOTS[key].value(r, held), "p": r.choice(words.PETS), "f": r.choice(_FRIENDS)}
        if key == "petname" and "pet" in found:
            fields["p"] = found["pet"]["v"]
        if key in ("name", "petname", "friend") and r.random() < 0.06:
            fields["v"] = fields["v"].lower()
        found[key] = fields
    return found


def said(r: Random, facts: dict[str, dict[str, str]], order: list[str]) -> str:
    """One message of the user that tells ``facts``, in ``order``."""
    parts = [expand(r, r.choice(SLOTS[k].say)).format(**facts[k]) for k in order]
    if len(parts) == 2 and r.random() < 0.5:
        fixed = ("I ", "I'm", facts[order[1]]["v"])
        second = parts[1] if parts[1].startswith(fixed) else parts[1][0].lower() + parts[1][1:]
        return f"{parts[0]} and {second}."
    text = ". ".join(p[0].upper() + p[1:] if r.random() < 0.95 else p for p in parts)
    return text + r.choice((".", ".", ".", ".", "!", ""))


def ack(facts: dict[str, dict[str, str]], order: list[str]) -> str:
    """The assistant's reply to a message that tells ``facts``."""
    if "name" in order:
        return f"Nice to meet you, {facts['name']['v']}."
    return "I will remember that."


def recall(r: Random, held: bool, between: Callable[[Random], list[Message]]) -> Talk:
    """Facts told in one or two turns, other turns between, then questions about them."""
    facts = draw_facts(r, held, r.choice((1, 1, 1, 2, 2, 3, 4)))
    order = list(facts)
    r.shuffle(order)
    if r.random() < 0.12:
        user = f"{said(r, facts, order)} "
        return questions(r, facts, [], prefix=user)
    messages: list[Message] = []
    cut = r.randint(1, len(order))
    for group in (order[:cut], order[cut:]):
        if group:
            messages += [("user", said(r, facts, group)), ("assistant", ack(facts, group))]
            messages += between(r)
    if r.random() < 0.06 and "name" in facts:
        facts["name"]["v"] = person(r, held)
        change = expand(r, "[Actually|Sorry|No]{c} my name is {v}[.|!| now.]")
        messages += [("user", change.format(v=facts["name"]["v"], c=",")),
                     ("assistant", ack(facts, ["name"]))]
        messages += between(r)
    return questions(r, facts, messages)


def questions(
    r: Random, facts: dict[str, dict[str, str]], messages: list[Message], prefix: str = ""
) -> Talk:
    """Ask for some of the facts after ``messages``."""
    keys = list(facts)
    r.shuffle(keys)
    messages = list(messages)
    for key in keys[: r.choice((1, 1, 1, 2, 3))]:
        slot, fields = SLOTS[key], facts[key]
        question = expand(r, r.choice(slot.ask)).format(**fields)
        messages.append(("user", prefix + noisy(r, question)))
        messages.append(("assistant", slot.answer.format(**fields)))
        prefix = ""
    return Talk(messages, Check("exact"))


def introduction(r: Random, held: bool) -> Talk:
    """The user says something about themselves; the answer takes note of it."""
    facts = draw_facts(r, held, r.choice((1, 1, 2)))
    order = list(facts)
    return talk(said(r, facts, order), ack(facts, order))


def told_by_system(r: Random, held: bool) -> Talk:
    """A question about what the system prompt says about the user."""
    facts = draw_facts(r, held, 1)
    key = next(iter(facts))
    forms = {
        "name": "[The user is called|The user's name is|You are talking to|The name of the user is] {v}.",
        "city": "The user [lives in|is from] {v}.",
        "age": "The user is {v} years old.",
        "colour": "The user's favourite colour is {v}.",
        "job": "The user works as a {v}.",
    }
    if key not in forms:
        facts, key = {"name": {"v": person(r, held)}}, "name"
    system = expand(r, "[|You are a helpful assistant. |Be brief. ]" + forms[key])
    done = questions(r, facts, [])
    return Talk(done.messages, done.check, system=system.format(**facts[key]))


def not_told(r: Random, held: bool) -> Talk:
    """A question about something the user never said."""
    key = r.choice(("name", "name", "city", "age", "colour", "job", "hobby", "food"))
    slot = SLOTS[key]
    return talk(noisy(r, ask(r, slot.ask, held, key)), slot.missing)


_BINDINGS = (
    (words.COLOURS, "{n} has a {v} {o}.", "[What|Which] colour is {n}'s {o}?", "{n}'s {o} is {v}."),
    (words.PETS, "{n} has a {v}.", "[What|Which] [animal|pet] does {n} have?", "{n} has a {v}."),
    (words.JOBS, "{n} [is|works as] a {v}.", "What is {n}'s job?", "{n} is a {v}."),
    (words.FOODS, "{n} likes {v}.", "[What|Which food] does {n} like?", "{n} likes {v}."),
    (None, "{n} lives in {v}.", "Where does {n} live?", "{n} lives in {v}."),
    ((), "{n} is {v} years old.", "How old is {n}?", "{n} is {v} years old."),
)


def reading(r: Random, held: bool) -> Talk:
    """A passage about two to four people and a question about one of them."""
    options, say, question, answer = r.choice(_BINDINGS)
    item = r.choice(words.PRODUCTS)
    people = list({person(r, held): 0 for _ in range(r.randint(1, 4))})
    rows = []
    for name in people:
        value = place(r, held) if options is None else r.choice(options or ("",))
        value = value or str(r.randint(3, 99))
        rows.append({"n": name, "v": value, "o": item})
    text = " ".join(expand(r, say).format(**row) for row in rows)
    row = r.choice(rows)
    if r.random() < 0.3 and sum(other["v"] == row["v"] for other in rows) == 1:
        question = expand(r, say).format(n="Who", v=row["v"], o=item).rstrip(".") + "?"
    asked = expand(r, question).format(**row)
    form = r.choice(("{t} {q}", "{t}\n{q}", "{t}\n\n{q}", "Text: {t}\nQuestion: {q}",
                     "Read this: {t}\n{q}", "{q}\n\n{t}"))
    return talk(form.format(t=text, q=asked), answer.format(**row))


