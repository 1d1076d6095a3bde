"""Owns arithmetic, comparison, counting, number words and spelling, in English."""

from __future__ import annotations

from random import Random

from . import words
from .base import Talk, ask, is_held, noisy, plain, styled, talk
from .names import person

LIMIT = 999
"""Sums and differences are of numbers from 0 to this one."""
TABLE = 12
"""Products are of numbers from 0 to this one, and of one below 100 with one below 10."""

_WORDS = {
    "+": ("[What is|What's] {a} plus {b}?", "{a} plus {b}", "Add {a} and {b}.", "Add {b} to {a}.",
          "[What is|Find|Give me] the sum of {a} and {b}[.|?]", "How much is {a} and {b} together?"),
    "-": ("[What is|What's] {a} minus {b}?", "{a} minus {b}", "Subtract {b} from {a}.",
          "[What is|Find] the difference between {a} and {b}[.|?]", "Take {b} away from {a}."),
    "*": ("[What is|What's] {a} times {b}?", "{a} times {b}", "Multiply {a} by {b}.",
          "[What is|Find|Give me] the product of {a} and {b}[.|?]", "{a} multiplied by {b}?"),
}
_SIGNS = (
    "[What is|What's|Whats] {e}?",
    "[Calculate|Compute|Solve|Evaluate|Work out] {e}[|.]",
    "How much is {e}?",
    "{e}[| =| = ?|=|=?|?]",
    "[Can you calculate|Can you compute|Do you know|Please compute] {e}?",
    "[Tell me|Give me] the [result|answer] of {e}.",
    "[What does|How much does] {e} [equal|make]?",
    "Solve: {e}",
)


def pair(r: Random, held: bool, sign: str | None = None) -> tuple[int, int, str, int]:
    """Two operands, the sign between them and the result."""
    while True:
        op = sign or r.choice("++--*")
        top = TABLE if op == "*" else r.choice((9, 20, 99, 99, 99, 99, LIMIT, LIMIT))
        a, b = r.randint(0, top), r.randint(0, r.choice((top, top, top, min(top, 99))))
        if op == "*" and r.random() < 0.4:
            a, b = r.randint(10, 99), r.randint(0, 9)
        if op != "-" and r.random() < 0.2:
            a, b = b, a
        if op == "-" and b > a and r.random() < 0.75:
            a, b = b, a
        # The multiplication table has to be known: only the phrasing of a product is held out.
        if op == "*" or is_held(f"{a}{op}{b}") == held:
            return a, b, op, a + b if op == "+" else a - b if op == "-" else a * b


def arithmetic(r: Random, held: bool, sign: str | None = None) -> Talk:
    """A sum, a difference or a product in words or signs."""
    a, b, op, result = pair(r, held, sign)
    shown = r.choice((op, op, "x", "×")) if op == "*" else op
    gap = r.choice((" ", " ", ""))
    expression = f"{a}{gap}{shown}{gap}{b}"
    templates = _WORDS[op] if r.random() < 0.35 else _SIGNS
    side = held if op == "*" else False
    question = ask(r, templates, side, f"{a}{op}{b}", a=a, b=b, e=expression)
    return styled(r, question, f"{a} {op} {b} = {result}.", str(result), keep_case=True, briefly=0.2)


def addition(r: Random, held: bool) -> Talk:
    """A sum."""
    return arithmetic(r, held, "+")


def subtraction(r: Random, held: bool) -> Talk:
    """A difference."""
    return arithmetic(r, held, "-")


def multiplication(r: Random, held: bool) -> Talk:
    """A product."""
    return arithmetic(r, held, "*")


def division(r: Random, held: bool) -> Talk:
    """A quotient without remainder, out of the table of products."""
    b, result = r.randint(1, TABLE), r.randint(0, TABLE)
    a = b * result
    gap = r.choice((" ", ""))
    question = ask(
        r,
        (*_SIGNS, "[What is|What's] {a} divided by {b}?", "Divide {a} by {b}.", "{a} divided by {b}"),
        held,
        f"{a}/{b}",
        a=a,
        b=b,
        e=f"{a}{gap}{r.choice('//÷')}{gap}{b}",
    )
    return styled(r, question, f"{a} / {b} = {result}.", str(result), keep_case=True, briefly=0.2)


def word_problem(r: Random, held: bool) -> Talk:
    """A sum or a difference told as a little story."""
    a, b = r.randint(1, 99), r.randint(1, 30)
    more = r.random() < 0.5
    if not more:
        a, b = max(a, b), min(a, b)
    while is_held(f"{a}{more}{b}") != held:
        a += 1
    subject, have = r.choice((("I", "I have"), ("you", "You have"), (person(r, held), "")))
    thing = r.choice("apple|book|ball|coin|cookie|pencil|egg|orange|flower|card".split("|")) + "s"
    have = have or f"{subject} has"
    change = ("get|buy|find|take" if more else "lose|eat|give away|sell").split("|")
    verb = r.choice(change)
    if subject not in ("I", "you"):
        verb = verb.replace("give", "gives") if "give" in verb else verb + "s"
    do = "does" if subject not in ("I", "you") else "do"
    extra = " more" if more else ""
    start = r.choice((f"If {have[0].lower() + have[1:] if subject == 'you' else have}", have))
    joint = ", how" if start.startswith("If") else r.choice((". How", ". how"))
    text = f"{start} {a} {thing} and {verb} {b}{extra}{joint} many {r.choice((thing, thing, ''))}"
    text = f"{text.rstrip()} {do} {subject} have{r.choice(('', ' now', ' left' if not more else ''))}?"
    result = a + b if more else a - b
    return talk(text, f"{a} {'+' if more else '-'} {b} = {result}.")


def too_large(r: Random, held: bool) -> Talk:
    """Arithmetic beyond what the model has learnt."""
    digits = r.randint(4, 7)
    a = r.randint(10 ** (digits - 1), 10**digits - 1)
    b = r.choice((r.randint(10, 99), r.randint(100, 999), a + r.randint(-900, 90000)))
    op = r.choice("+-*/*")
    if op == "*" and r.random() < 0.5:
        a = r.randint(100, 999)
    while is_held(f"{a}{op}{b}") != held:
        b += 1
    gap = r.choice((" ", ""))
    shown = r.choice((f"{a}{gap}{op}{gap}{b}", f"{b}{gap}{op}{gap}{a}"))
    templates = [t for t in _SIGNS if "[| = | = ?" not in t]
    question = ask(r, templates, False, "", e=shown)
    return talk(noisy(r, question, keep_case=True), "These numbers are too large for me.")


def arithmetic_text(r: Random, held: bool) -> Talk:
    """``12 + 30 =`` to complete, alone or under other lines."""
    lines = []
    for _ in range(r.choice((0, 0, 0, 0, 0, 1, 2))):
        a, b, op, result = pair(r, False)
        lines.append(f"{a} {op} {b} = {result}\n")
    a, b, op, result = pair(r, held)
    return plain("".join(lines) + f"{a} {op} {b} =", f" {result}")


def compare(r: Random, held: bool) -> Talk:
    """The larger or the smaller of two numbers."""
    top = r.choice((20, 99, 99, LIMIT))
    a, b = r.sample(range(top + 1), 2)
    while is_held(f"{a}<{b}") != held:
        a, b = r.sample(range(top + 1), 2)
    large = r.random() < 0.5
    question = ask(
        r,
        (
            "Which [number |]is {w}[,|:] {a} or {b}?",
            "[What|Which] is the {w} number[:|,] {a} or {b}?",
            "Is {a} or {b} {w}?",
            "{a} or {b}: which is {w}?",
            "[Tell me|Choose] the {w} [one |]of {a} and {b}.",
        ),
        False,
        "",
        w=r.choice(("larger", "bigger", "greater") if large else ("smaller", "less")),
        a=a,
        b=b,
    )
    value = max(a, b) if large else min(a, b)
    return styled(r, question, f"{value} is {'larger' if large else 'smaller'}.", str(value), True)


def counting(r: Random, held: bool) -> Talk:
    """Counting up or down between two numbers."""
    a = r.choice((1, 1, 0, r.randint(0, 90)))
    b = min(100, a + r.choice((r.randint(1, 15), r.randint(5, 30), r.randint(1, 100))))
    down = r.random() < 0.2 and b - a <= 30
    while is_held(f"{a}..{b}") != held:
        a, b = r.randint(0, 80), r.randint(81, 100)
        b = a + r.randint(1, 20)
        down = False
    if down:
        a, b = b, a
    text = ", ".join(str(i) for i in range(a, b + (-1 if down else 1), -1 if down else 1))
    question = ask(
        r,
        (
            "[Count|Please count|Can you count] from {a} to {b}[.|?]",
            "Count[| down] from {a} to {b}." if down else "Count up from {a} to {b}.",
            "[List|Write|Give me|Say] the numbers from {a} to {b}[.|?]",
            "[Write down|Show me] all numbers from {a} to {b}.",
            "Count {a} to {b}",
            *(("[Count|Please count] [to|from one to|up to] {w}[.|]",) * 3 if a == 1 < b <= 20 else ()),
            *(("[Count|Count up|Please count|Can you count] to {b}[.|]",) * 4 if a == 1 < b else ()),
        ),
        False,
        "",
        a=a,
        b=b,
        w=words.NUMBER_WORDS[b] if b <= 20 else b,
    )
    return talk(noisy(r, question), f"{text}.")


def neighbour(r: Random, held: bool) -> Talk:
    """The number after or before another."""
    n, after = r.choice((r.randint(1, 99), r.randint(1, 199), r.randint(1, 998))), r.random() < 0.6
    side = "after" if after else "before"
    question = ask(
        r,
        (
            "[What|Which] number [comes|is] {s} {n}?",
            "[Tell me|Name] the number {s} {n}.",
            "What [comes|is] {s} {n}?",
        ),
        held,
        f"{n}{side}",
        s=side,
        n=n,
    )
    value = n + 1 if after else n - 1
    return styled(r, question, f"The number {side} {n} is {value}.", str(value))


def number_word(r: Random, held: bool) -> Talk:
    """A number up to twenty in words, or the other way round."""
    n = r.randint(0, 20)
    word = words.NUMBER_WORDS[n]
    if r.random() < 0.5:
        question = ask(
            r,
            (
                "[How do you|How do I] [write|spell] {n} in words?",
                "Write [the number |]{n} [in words|as a word].",
                "What is {n} in words?",
                "[Spell out|Say] the number {n}[| in words].",
            ),
            held,
            word,
            n=n,
        )
        return styled(r, question, f"{n} in words is {word}.", word)
    question = ask(
        r,
        (
            "[Write|Give me] {w} [in digits|as a number|with digits].",
            "[Which|What] number is {w}?",
            "What is {w} in digits?",
            "{w} in digits?",
        ),
        held,
        word,
        w=word,
    )
    return styled(r, question, f"{word.capitalize()} in digits is {n}.", str(n))


def spelling(r: Random, held: bool) -> Talk:
    """A word or a name letter by letter."""
    name = r.random() < 0.3
    word = person(r, held) if name else r.choice(words.COMMON)
    question = ask(
        r,
        (
            "[Spell|Please spell|Can you spell] [the word |]{w}[.|?]",
            "[Spell|Please spell] [the word |]'{w}'[.|!]",
            "[Spell|Please spell] [the word |]\"{w}\"[.|!]",
            "How do you spell {w}?",
            "How is [the word |]{w} spelled?",
            "Spell {w} [letter by letter|out].",
            "[Write|Give me|Say] the letters of [the word |]{w}[.|!]",
            "What are the letters [of|in] {w}?",
        ),
        False if name else held,
        word,
        w=word,
    )
    text = "-".join(word.replace("-", "").upper())
    return talk(noisy(r, question, keep_case=True), text)


def letter_count(r: Random, held: bool) -> Talk:
    """How many letters a common word has, and which comes first."""
    word = r.choice([w for w in words.COMMON if "-" not in w])
    if r.random() < 0.5:
        question = ask(
            r,
            (
                "How many letters are in [the word |]{w}?",
                "How many letters are there in [|the word ]{w}?",
                "[Count|Tell me the number of] the letters [in|of] [the word |]{w}.",
            ),
            held,
            word,
            w=word,
        )
        return styled(r, question, f"The word {word} has {len(word)} letters.", str(len(word)))
    which, value = r.choice((("first", word[0]), ("last", word[-1])))
    question = ask(
        r,
        (
            "[What is|Tell me|Name] the {s} letter [of|in] [the word |]{w}[?|.]",
            "[Which|What] letter does {w} [begin|start] with?" if which == "first"
            else "[Which|What] letter does {w} end with?",
        ),
        held,
        word + which,
        w=word,
        s=which,
    )
    answer = f"The {which} letter of {word} is {value.upper()}."
    return styled(r, question, answer, value.upper())
