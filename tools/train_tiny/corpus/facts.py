"""Owns the fact skills: countries, colours, opposites, animals, days, months and word pairs."""

from __future__ import annotations

from random import Random

from . import words
from .base import Check, NoSuchPhrase, Talk, ask, expand, is_held, noisy, plain, styled, talk
from .countries import ALIASES, COUNTRIES
from .names import invented_country

_CAPITAL = (
    "[What is|What's|Whats|Which city is] the capital [|city ]of {c}?",
    "[Tell me|Give me|Name|Say|State] the capital [|city ]of {c}.",
    "[The c|C]apital [|city ]of {c}?",
    "[Do you know|Can you tell me|Could you tell me] the capital [|city ]of {c}?",
    "[Do you know|Can you tell me|Tell me|I want to know] what the capital [|city ]of {c} is[.|?]",
    "[Which|What] city is the capital of {c}?",
    "{c}[|:|,] capital?",
    "What is {c}'s capital[| city]?",
    "[Please name|Name|Tell me] {c}'s capital[| city].",
    "[Which city|What city|What] is {c}'s capital?",
    "{c} has [which|what] capital?",
    "In {c}, what is the capital[| city]?",
    "For the country {c}, [name|give] the capital.",
)
_REVERSE = (
    "{k} is the capital of [which|what] country?",
    "[Which|What] country has {k} as its capital[| city]?",
    "[Which|What] country has the capital {k}?",
    "Of which country is {k} the capital?",
    "[What|Which] country is {k} the capital of?",
    "[Name|Tell me] the country whose capital is {k}.",
    "Whose capital is {k}?",
    "[In which|In what] country is [the capital |]{k}?",
    "Where is {k}?",
)
_CONTINENT = (
    "[Which|What] continent is {c} [in|on|part of]?",
    "On [which|what] continent is {c}?",
    "In [which|what] continent is {c}?",
    "[Tell me|Name] the continent of {c}.",
    "What is the continent of {c}?",
    "{c} is on [which|what] continent?",
    "[Which|What] continent does {c} belong to?",
    "Where in the world is {c}?",
)
_CURRENCY = (
    "What is the currency of {c}?",
    "[Which|What] currency [does {c} use|is used in {c}]?",
    "[Which|What] money [do people use|is used] in {c}?",
    "[Tell me|Name] the currency of {c}.",
    "What is {c}'s currency?",
    "[C|The c]urrency of {c}?",
    "How do people pay in {c}?",
)
_IS_CAPITAL = (
    "Is {k} the capital [|city ]of {c}?",
    "Is the capital of {c} {k}?",
    "[True or false|Yes or no]: {k} is the capital of {c}.",
    "{k} is the capital of {c}, [right|correct|isn't it]?",
)


def _variants(r: Random, name: str) -> str:
    """A country's name as people type it: mostly without its article."""
    if name in ALIASES and r.random() < 0.6:
        return r.choice(ALIASES[name])
    return name.removeprefix("the ") if r.random() < 0.35 else name


def capital(r: Random, held: bool) -> Talk:
    """Country to capital."""
    row = r.choice(COUNTRIES)
    if r.random() < 0.06:
        name = r.choice(list(ALIASES))
        row = next(c for c in COUNTRIES if c.name == name)
    question = ask(r, _CAPITAL, held, row.name, c=_variants(r, row.name))
    return styled(r, question, f"The capital of {row.name} is {row.capital}.", row.capital)


def country_of(r: Random, held: bool) -> Talk:
    """Capital to country."""
    row = r.choice(COUNTRIES)
    question = ask(r, _REVERSE, held, row.name, k=row.capital)
    short = row.name.removeprefix("the ")
    return styled(r, question, f"{row.capital} is the capital of {row.name}.", short)


def continent(r: Random, held: bool) -> Talk:
    """Country to continent."""
    row = r.choice(COUNTRIES)
    question = ask(r, _CONTINENT, held, row.name, c=_variants(r, row.name))
    name = row.name[0].upper() + row.name[1:]
    return styled(r, question, f"{name} is in {row.continent}.", row.continent)


def currency(r: Random, held: bool) -> Talk:
    """Country to currency."""
    row = r.choice([c for c in COUNTRIES if c.currency])
    question = ask(r, _CURRENCY, held, row.name, c=_variants(r, row.name))
    return styled(r, question, f"The currency of {row.name} is the {row.currency}.", row.currency)


def is_capital(r: Random, held: bool) -> Talk:
    """Yes or no about a capital."""
    row = r.choice(COUNTRIES)
    yes = r.random() < 0.5
    city = row.capital if yes else r.choice(COUNTRIES).capital
    yes = city == row.capital
    question = ask(r, _IS_CAPITAL, held, row.name + city, c=row.name, k=city)
    start = "Yes, the" if yes else "No, the"
    answer = f"{start} capital of {row.name} is {row.capital}."
    return styled(r, question, answer, "Yes" if yes else "No")


def choose_capital(r: Random, held: bool) -> Talk:
    """Pick the capital out of three cities."""
    row, *others = r.sample(COUNTRIES, 3)
    options = [row.capital, *(o.capital for o in others)]
    r.shuffle(options)
    listed = expand_list(r, options)
    question = ask(
        r,
        (
            "Which [city |]is the capital of {c}: {o}?",
            "[Choose|Pick] the capital of {c}: {o}.",
            "Which of these is the capital of {c}? {o}",
        ),
        held,
        row.name,
        c=row.name,
        o=listed,
    )
    return talk(noisy(r, question), f"The capital of {row.name} is {row.capital}.")


def expand_list(r: Random, items: list[str]) -> str:
    """The items as ``a, b or c`` or ``a, b, c``."""
    return ", ".join(items[:-1]) + r.choice((" or ", ", ", ", or ")) + items[-1]


def and_then(r: Random, held: bool) -> Talk:
    """A capital, then the same question about another country in a few words."""
    first, second = r.sample(COUNTRIES, 2)
    question = ask(
        r, ("[And|What about|How about|And what about|And of] {c}?",), held, second.name,
        c=_variants(r, second.name),
    )
    answer = f"The capital of {second.name} is {second.capital}."
    if r.random() < 0.3:
        forms = ("[What|Which] continent is [it|that|the country] in?", "[And|] on [what|which] continent is it?",
                 "What is its continent?", "[And|] the continent?")
        question = ask(r, forms, held, first.name)
        answer = f"{first.name[0].upper()}{first.name[1:]} is in {first.continent}."
    opening = ask(r, _CAPITAL, False, first.name, c=first.name)
    start = talk(opening, f"The capital of {first.name} is {first.capital}.")
    return talk(noisy(r, question), answer).before(start.messages)


def unknown_capital(r: Random, held: bool) -> Talk:
    """The capital of a country that does not exist."""
    name = invented_country(r, held)
    question = ask(r, _CAPITAL, held=False, fact=name, c=name)
    answer = f"I do not know the capital of {name}."
    return talk(noisy(r, question, keep_case=True), answer)


_STATEMENTS = (
    ("The capital [|city ]of {c} is", " {k}."),
    ("{k} is the capital [|city ]of", " {c}."),
    ("{C} is in", " {t}."),
    ("The currency of {c} is the", " {m}."),
    ("{C}'s capital [|city ]is", " {k}."),
    ("Question: What is the capital of {c}?\nAnswer:", " {k}"),
    ("Q: What is the capital of {c}?\nA:", " {k}"),
)


def _statement(r: Random, held: bool) -> tuple[str, str]:
    row = r.choice([c for c in COUNTRIES if c.currency])
    form, rest = r.choice(_STATEMENTS) if r.random() < 0.6 else _STATEMENTS[0]
    upper = row.name[0].upper() + row.name[1:]
    prompt = ask(r, (form,), held, row.name, C=upper, c=row.name, k=row.capital)
    return prompt, rest.format(k=row.capital, c=row.name, t=row.continent, m=row.currency)


def fact_text(r: Random, held: bool) -> Talk:
    """Plain statements to complete, alone or after other ones."""
    earlier = [_statement(r, False) for _ in range(r.choice((0, 0, 0, 0, 0, 1, 2)))]
    joint = r.choice((" ", "\n"))
    head = "".join(p + c.rstrip() + joint for p, c in earlier)
    prompt, rest = _statement(r, held)
    return plain(head + prompt, rest)


def list_text(r: Random, held: bool) -> Talk:
    """A list of pairs to go on with, as in a few-shot prompt."""
    rows = r.sample([c for c in COUNTRIES if is_held(c.name + "list") == held], 3)
    rows = r.sample(COUNTRIES, r.randint(1, 4)) + rows
    form = r.choice(("{} -> {}", "{}: {}", "Country: {}\nCapital: {}", "{} = {}"))
    text = "\n".join(form.format(c.name.removeprefix("the "), c.capital) for c in rows)
    cut = len(text) - len(rows[-1].capital) - 1
    return plain(text[:cut], text[cut:])


def colour(r: Random, held: bool) -> Talk:
    """Thing to colour."""
    thing, shade = r.choice(words.THING_COLOUR)
    question = ask(
        r,
        (
            "[What|Which] [colour|color] is {x}?",
            "[What is|What's] the [colour|color] of {x}?",
            "[Tell me|Name] the [colour|color] of {x}.",
            "[What|Which] [colour|color] does {x} have?",
        ),
        held,
        thing,
        x=thing,
    )
    return styled(r, question, f"{thing[0].upper()}{thing[1:]} is {shade}.", shade)


def is_colour(r: Random, held: bool) -> Talk:
    """Yes or no about a colour."""
    thing, shade = r.choice(words.THING_COLOUR)
    asked = shade if r.random() < 0.5 else r.choice(words.COLOURS[:11])
    forms = ("Is {x} {s}?", "[Yes or no|True or false]: {x} is {s}.", "{x} is {s}, [right|correct]?")
    question = ask(r, forms, held, thing + asked, x=thing, s=asked)
    yes = asked == shade
    answer = f"{'Yes' if yes else 'No'}, {thing} is {shade}."
    return styled(r, question, answer, "Yes" if yes else "No")


def about(r: Random, held: bool) -> Talk:
    """What the model knows about a country."""
    row = r.choice(COUNTRIES)
    forms = ("[Tell me|Say something|Tell me something] about {c}[.|]", "What do you know about {c}?",
             "[Describe|Introduce] {c}[.|]", "[Give me|List] facts about {c}[.|]")
    question = ask(r, forms, held, row.name, c=_variants(r, row.name))
    name = row.name[0].upper() + row.name[1:]
    answer = f"{name} is in {row.continent}. The capital of {row.name} is {row.capital}."
    return talk(noisy(r, question), answer)


def trivia(r: Random, held: bool) -> Talk:
    """A fixed set of questions with one answer each."""
    forms, answer = r.choice(words.TRIVIA)
    text = expand(r, r.choice(forms))
    question = noisy(r, text)
    while is_held(question) != held:
        question = noisy(r, expand(r, r.choice(forms)))
    return talk(question, answer)


def listing(r: Random, held: bool) -> Talk:
    """The first few of a kind: colours, animals, fruits, days and others."""
    kind, items = r.choice(tuple(words.LISTS.items()))
    n = r.choice((0, 2, 3, 3, 4, 5))
    count = r.choice((str(n), words.NUMBER_WORDS[n])) + " " if n else r.choice(("some ", ""))
    forms = ("[List|Name|Give me|Tell me|Write|Say] {n}{k}[.|]", "[Can you|Could you] [list|name] {n}{k}?",
             "[Make|Write|Give me] a list of {n}{k}[.|]", "[List|Name] {n}[different |]{k}[.|, please.]")
    question = ask(r, forms, held, f"{kind}{n}", n=count, k=kind)
    return talk(noisy(r, question), ", ".join(items[: n or 3]) + ".")


def sentence_text(r: Random, held: bool) -> Talk:
    """Sentences and rows to go on with in plain text."""
    roll = r.random()
    if roll < 0.6:
        source = r.choice((colour, opposite, animal, calendar))(r, held)
        answer = source.messages[-1][1]
        if not answer.endswith(".") or answer.isupper():
            raise NoSuchPhrase(answer)
        cut = answer.rindex(" ")
        return plain(answer[:cut], answer[cut:])
    row = r.choice((words.DAYS, words.MONTHS, tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), words.NUMBER_WORDS,
                    tuple(str(n) for n in range(1, 21))))
    start = 0 if r.random() < 0.7 else r.randrange(len(row) - 3)
    cut = r.randint(start + 2, len(row) - 1)
    head = ", ".join(row[start:cut]) + ","
    if is_held(head) != held:
        raise NoSuchPhrase(head)
    return plain(head, " " + ", ".join(row[cut:]) + ".")


def opposite(r: Random, held: bool) -> Talk:
    """Word to its opposite, both ways where the pair is unambiguous."""
    left, right = r.choice(words.OPPOSITES)
    rights = [b for _, b in words.OPPOSITES]
    lefts = [a for a, _ in words.OPPOSITES]
    if r.random() < 0.4 and right not in lefts and rights.count(right) == 1:
        left, right = right, left
    question = ask(
        r,
        (
            "What is the opposite of [|'|\"]{x}[|'|\"]?",
            "[Tell me|Give me|Name] the opposite of {x}.",
            "[Opposite|The opposite] of {x}?",
            "[Which word|What] means the opposite of {x}?",
            "What is the antonym of {x}?",
            "{x} is the opposite of [what|which word]?",
        ),
        held,
        left,
        x=left,
    )
    return styled(r, question, f"The opposite of {left} is {right}.", right)


def animal(r: Random, held: bool) -> Talk:
    """What an animal says, and what its young are called."""
    if r.random() < 0.55:
        kind, value = r.choice(words.ANIMAL_SOUND)
        question = ask(
            r,
            (
                "What [sound|noise] does {x} make?",
                "What does {x} say?",
                "[Which|What] sound do you hear from {x}?",
                "[Tell me|Name] the sound of {x}.",
            ),
            held,
            kind,
            x=_article(kind),
        )
        return styled(r, question, f"{_article(kind).capitalize()} says {value}.", value)
    kind, value = r.choice(words.ANIMAL_BABY)
    question = ask(
        r,
        (
            "What is a baby {x} called?",
            "What do you call a baby {x}?",
            "[Which|What] word [names|means] a young {x}?",
            "What is the [name|word] for a [baby|young] {x}?",
        ),
        held,
        kind,
        x=kind,
    )
    return styled(r, question, f"A baby {kind} is called a {value}.".replace("a o", "an o"), value)


def _article(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def calendar(r: Random, held: bool) -> Talk:
    """The day or the month after or before another."""
    table, what = r.choice(((words.DAYS, "day"), (words.MONTHS, "month")))
    i, after = r.randrange(len(table)), r.random() < 0.6
    side = "after" if after else "before"
    question = ask(
        r,
        (
            "[What|Which] {w} [comes|is] {s} {x}?",
            "[Tell me|Name] the {w} {s} {x}.",
            "What is the {w} {s} {x}?",
            "The {w} {s} {x}?",
            "{x}: [what|which] {w} [comes|is] {s} it?",
        ),
        held,
        table[i] + side,
        w=what,
        s=side,
        x=table[i],
    )
    value = table[(i + (1 if after else -1)) % len(table)]
    return styled(r, question, f"The {what} {side} {table[i]} is {value}.", value)


def translate(r: Random, held: bool) -> Talk:
    """A word from English to Chinese or back."""
    english, chinese = r.choice(words.TRANSLATIONS)
    if r.random() < 0.5:
        question = ask(
            r,
            (
                "[How do you say|How do I say|What is] [|'|\"]{x}[|'|\"] in Chinese?",
                "Translate [|'|\"]{x}[|'|\"] [to|into] Chinese.",
                "What is the Chinese word for {x}?",
            "Translate [this |][to|into] Chinese: {x}",
                "{x}用中文怎么说？",
            ),
            held,
            english,
            x=english,
        )
        return styled(r, question, f"In Chinese, {english} is {chinese}.", chinese)
    question = ask(
        r,
        (
            "[How do you say|What is] {x} in English?",
            "Translate {x} [to|into] English.",
            "Translate [this |][to|into] English: {x}",
            "What does {x} mean[| in English]?",
            "{x}用英语怎么说？",
        ),
        held,
        chinese,
        x=chinese,
    )
    return styled(r, question, f"In English, {chinese} is {english}.", english)


def sentiment(r: Random, held: bool) -> Talk:
    """Whether a review is positive or negative."""
    good = r.random() < 0.5
    word = r.choice(words.GOOD_WORDS if good else words.BAD_WORDS)
    review = ask(
        r,
        (
            "The {t} was [|really |very |so ]{w}[.|!]",
            "[What a|It was a] {w} {t}[.|!]",
            "I think [the|this] {t} is {w}.",
            "I [|really ]{v} [it|this {t}|the {t}][.|!]",
        ),
        held,
        word,
        t=r.choice(words.REVIEWED),
        w=word,
        v=r.choice(("love", "like", "enjoyed") if good else ("hate", "dislike", "disliked")),
    )
    question = ask(
        r,
        (
            "Is this [review|text|sentence] positive or negative? {x}",
            "[Classify|Label] the [sentiment|review] as positive or negative: {x}",
            "What is the sentiment[| of this text]? {x}",
            "{x} Is that positive or negative?",
            "Sentiment (positive or negative): {x}",
        ),
        False,
        "",
        x=review,
    )
    label = "positive" if good else "negative"
    return Talk([("user", question), ("assistant", label)], Check("exact"))
