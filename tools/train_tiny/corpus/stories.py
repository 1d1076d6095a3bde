"""Owns the grammar of the short stories."""

from __future__ import annotations

from random import Random

from .base import Check, Talk, expand, noisy, plain
from .names import person

_HEROES = tuple(
    "fox|rabbit|bear|cat|dog|mouse|owl|dragon|princess|robot|boy|girl|king|wizard|frog|lion|"
    "turtle|elephant|pirate|knight|wolf|bird|horse|farmer|giant".split("|")
)
_TRAITS = "little|brave|clever|kind|lonely|curious|shy|happy|young|old|small|gentle".split("|")
_PLACES = (
    "in a dark forest|by the sea|on a high mountain|in a small village|near a wide river|"
    "in a green valley|in a big castle|on a quiet island|in a busy city|under an old tree"
).split("|")
_GOALS = (
    "a golden key|a lost map|a red lantern|a magic stone|a silver bell|a new friend|"
    "a warm coat|a blue flower|a hidden treasure|a sweet apple"
).split("|")
_EPISODES = (
    "One [morning|evening|day], {n} met a {t} {o}. The {o} said, \"[Please help me|Come with me|"
    "Do not be afraid].\" {n} [smiled and agreed|nodded and followed|laughed and said yes].",
    "Then it began to [rain|snow]. {n} [hid under a big leaf|found a dry cave|ran to an old barn] "
    "and waited until the [sky was clear|sun came back].",
    "On the way, {n} had to cross a [deep|cold|fast] river. A {t} {o} [built a small boat|"
    "showed a safe bridge|carried {n} across].",
    "At night, {n} heard a strange [song|noise|voice]. It was only a {t} {o} who could not sleep, "
    "so they [told each other stories|counted the stars|shared some bread].",
    "Soon {n} was [hungry|tired|thirsty]. A {t} {o} gave {n} [some bread|fresh water|a soft bed] "
    "and asked for nothing in return.",
    "A {t} {o} blocked the path and asked a riddle. {n} thought for a [while|long time] and "
    "[gave the right answer|found the answer at last].",
)
_ENDS = (
    "In the end, {n} found {g} and went home [happy|full of joy|with a smile].",
    "At last, {n} found {g}. [Everyone was happy|All the friends danced|There was a great feast].",
    "After a long [journey|day], {n} found {g} and shared it with [everyone|all the friends].",
)
_MORALS = (
    "From that day on, {n} was never [alone|afraid] again.",
    "And {n} learned that [friends are the best treasure|kindness always comes back|"
    "it is good to be brave].",
    "And they all lived happily ever after.",
)


def _sentence(r: Random, forms: tuple[str, ...], **fields: str) -> str:
    return expand(r, r.choice(forms)).format(**fields)


def story(r: Random, hero: str, name: str, episodes: int) -> str:
    """A story about a named hero, with ``episodes`` episodes in the middle."""
    trait, goal = r.choice(_TRAITS), r.choice(_GOALS)
    article = "an" if trait[0] in "aeiou" else "a"
    lines = [
        f"Once upon a time, there was {article} {trait} {hero} named {name}.",
        f"{name} lived {r.choice(_PLACES)} and wanted to find {goal}.",
    ]
    others = [h for h in _HEROES if h not in (hero, "owl", "elephant")]
    traits = [t for t in _TRAITS if t != "old"]
    plots = list(_EPISODES)
    r.shuffle(plots)
    for i in range(episodes):
        fields = {"n": name, "o": r.choice(others), "t": r.choice(traits)}
        lines.append(_sentence(r, (plots[i % len(plots)],), **fields))
    lines.append(_sentence(r, _ENDS, n=name, g=goal))
    if r.random() < 0.6:
        lines.append(_sentence(r, _MORALS, n=name))
    lines.append("The end.")
    return " ".join(lines)


_REQUESTS = (
    "[Tell me|Write|Write me|Give me|I want to hear|Make up|Please tell me] {s} about {x}[.|!|]",
    "[Can you|Could you|Will you] [tell|write] [me |]{s} about {x}?",
    "{s} about {x}[|, please]",
)


def told(r: Random, held: bool) -> Talk:
    """A request for a story about a hero, maybe with a name, maybe of a given length."""
    hero = r.choice(_HEROES)
    named = r.random() < 0.5
    name = person(r, held)
    size = r.choice(("short", "long", "", "", ""))
    episodes = {"short": r.randint(0, 1), "long": r.randint(5, 8), "": r.randint(1, 4)}[size]
    article = "an" if hero[0] in "aeio" else "a"
    subject = f"{article} {hero}" + (
        f" {r.choice(('named', 'called', 'whose name is'))} {name}" if named else ""
    )
    kind = f"a {size} story" if size else r.choice(("a story", "a story", "a tale", "a bedtime story"))
    request = expand(r, r.choice(_REQUESTS)).format(s=kind, x=subject)
    if not named and r.random() < 0.15:
        request = expand(r, "[Tell me|Write|I want|Please tell me] " + kind + "[.||, please.]")
        hero = r.choice(_HEROES)
        named = False
        want = ("Once upon a time",)
    else:
        want = (hero, name) if named else (hero,)
    text = story(r, hero, name, episodes)
    question = noisy(r, request[0].upper() + request[1:], keep_case=True)
    return Talk([("user", question), ("assistant", text)], Check("story", want))


def story_text(r: Random, held: bool) -> Talk:
    """A story to continue from its first words."""
    hero, name = r.choice(_HEROES), person(r, held)
    text = story(r, hero, name, r.randint(0, 5))
    cut = text.index(name) + len(name)
    if r.random() < 0.25:
        cut = text.index(" ", r.randrange(cut, len(text) * 2 // 3))
    elif r.random() < 0.5:
        cut = r.choice((len("Once upon a time"), len("Once upon a time,"), text.index(" named")))
    tail = plain(text[:cut], text[cut:])
    want = (name,) if cut > text.index(name) else ("The end.",)
    return Talk(tail.messages, Check("story", want))
