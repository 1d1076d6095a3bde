"""Owns small talk, identity, repetition and the honest answer to what the model cannot know."""

from __future__ import annotations

from random import Random

from . import words
from .base import Check, Talk, ask, expand, is_held, noisy, talk
from .names import code, full_name, gibberish, invented, person, place, word

WHO = "I am Quire's tiny model, a very small language model."
ABLE = (
    "I can name capitals, add small numbers, spell words, remember what you tell me, "
    "write JSON, call tools and tell short stories."
)
UNKNOWN = "I do not know that. I am a very small model."

_FIXED = (
    (("[Who|What] are you?", "[Tell me|Say] who you are.", "What is your name?",
      "[What's your name|Do you have a name|Introduce yourself][?|.]", "Are you [human|a robot]?",
      "[Are you|Is this] [ChatGPT|a chatbot|an AI|a language model]?", "[Tell me|Say something] about yourself.",
      "[Which|What] model are you?", "Who am I talking to?", "Who [made|built|trained|created] you?"), WHO),
    (("What can you do[| for me]?", "[How can you help|Can you help] me?", "What are you able to do?",
      "[Help|I need help|What do you know|List your skills][?|.|!]", "What are your skills?"), ABLE),
    (("[Hello|Hi|Hey|Hello there|Good morning|Good evening|Good afternoon|Greetings|Hi there|Howdy]"
      "[!|.|,||!!]",), "Hello! How can I help you?"),
    (("How are you[| today| doing]?", "How do you do?", "How is it going?", "Are you [well|ok|okay]?",
      "What's up?"), "I am fine, thank you. How can I help you?"),
    (("[Thanks|Thank you|Thank you very much|Many thanks|Thanks a lot|Thx|Great, thanks]"
      "[!|.||, that was helpful.]",), "You are welcome."),
    (("[Goodbye|Bye|Bye bye|See you|See you later|Good night|Farewell|Have a nice day][!|.||, my friend.]",),
     "Goodbye!"),
    (("[Yes|Okay|OK|Great|Good|Nice|Cool|Sure|Perfect|I see|Well done|Good job][!|.|]",), "Good."),
    (("[You are|You're] [great|smart|nice|funny|helpful][!|.]", "I like you[!|.]"), "Thank you."),
    (("Tell me a joke[.|!]", "[Say|Tell me] something funny[.|!]", "Do you know a joke?",
      "[A joke|Another joke][,| please|!]"),
     "Why did the robot sleep? Because it was out of power."),
)


def small_talk(r: Random, held: bool) -> Talk:
    """Greetings, thanks, goodbyes and questions about the model."""
    templates, answer = r.choice(_FIXED) if r.random() < 0.6 else r.choice(_FIXED[:2])
    question = expand(r, r.choice(templates))
    text = question if r.random() < 0.5 else noisy(r, question, keep_case=False)
    while is_held(text) != held:
        text = noisy(r, expand(r, r.choice(templates)))
    return talk(text, answer)


def nonsense(r: Random, held: bool) -> Talk:
    """A message that means nothing."""
    parts = [gibberish(r, held).lower() for _ in range(r.choice((1, 1, 2)))]
    text = r.choice((" ".join(parts), " ".join(parts), r.choice(("?", "...", "??", "!", ".", "-"))))
    return talk(text, "I do not understand that.")


def feeling(r: Random, held: bool) -> Talk:
    """A remark about the user's mood: no name in it."""
    moods = "happy|sad|tired|hungry|bored|angry|fine|well|cold|sick|busy|sleepy|excited|lonely|late"
    mood = r.choice(moods.split("|"))
    forms = ("I am [|very |so |a bit |really ]{m}[| today| now][.|!|]", "I feel {m}[| today][.|!|]",
             "I'm [|so |very ]{m}[| today| right now][.|!|]", "I was {m} yesterday[.|]")
    return talk(ask(r, forms, held, mood, m=mood), "Thank you for telling me.")


_TOPICS = (
    "quantum physics|the stock market|photosynthesis|football rules|black holes|cooking pasta|"
    "Roman history|machine learning|the French Revolution|electric cars|taxes|chess openings|"
    "volcanoes|the human brain|jazz music|climate change|gravity|politics|philosophy|poetry"
).split("|")
_THINGS = (
    "a {n} {w}|the {w}|{w} and {v}|the {n} of {m}|my {w}|the {w} in {m}|a {w} made of {v}|{w}s"
).split("|")
_UNKNOWN = (
    "[Give me|Tell me|Show me|Send me] [a|some|the|a random] [{n} {w}|{w}|number|picture|link|date|recipe][.|]",
    "[Write|Say|Give me] [a|one|some|three] [sentence|sentences|paragraph|line|words] about {t}[.|]",
    "[Summarize|Summarise|Continue|Correct|Improve|Translate into German]: [The {w} is {n}.|{w} and {v}|I like the {w}.]",
    "[Write|Write me] a [poem|song|letter|essay|rhyme|book][.|]",
    "What is [half|a third|ten percent|the double] of {y}?",
    "Who [won|lost|invented|discovered|wrote|painted|built|founded|designed] {t}?",
    "Who [is|was] {p}?",
    "[Why|How] [is|was|does|do|did|can|should] {t} [work|so important|change|happen|grow|exist]?",
    "[When|Where] was {t} [built|born|made|invented|found]?",
    "What happened in [the year |]{y}?",
    "[How many|How much] {w}s [are there|were sold|live|can you buy] in {m}?",
    "[Explain|Describe|Summarise|Summarize] {t}[.|| to me.| in detail.]",
    "[Explain|Describe|Tell me about|What do you think about|What is] {o}[.|?]",
    "[Write|Give me] a [poem|song|essay|speech|report|haiku|letter] about {t}[.|]",
    "Write [a Python|a Java|some|a JavaScript] [function|program|code] that [sorts|counts|reads] {w}s.",
    "How [do|can|should] I [fix|build|cook|repair|grow|sell|clean|find] {t}?",
    "[What is|What's] the [price|population|height|weight|age|history|meaning|length] of {t}?",
    "[What is|What's] the [population|area|mayor|president|history|king|language] of {m}?",
    "[Should|Can|Will|Could] [I|we|they] [eat|buy|sell|meet|trust] {t}[| next year| tomorrow]?",
    "What [is|was] the [best|worst|first|longest|fastest|oldest] {w} in {m}?",
    "[What will|What did|What should] {p} [say|do|eat|buy|think|write][| in {y}]?",
    "Who [won|hosted|watched] the {e} in {y}?",
    "What is the [square root|logarithm|cube] of {y}?",
    "[What is|Who wrote] \"{n} {w}\"?",
    "[Is|Was] {p} [right|happy|older than {m}|in {m}]?",
    "[What|Which] [film|book|song] should I [watch|read|hear] [today|next|tonight]?",
    "[What is|What's] the weather [today|like|tomorrow|in {m}|like in {m} today]?",
    "[What time is it|What is the date today|What day is it|What's the news][| in {m}]?",
)


def unknown(r: Random, held: bool) -> Talk:
    """A question that the model cannot answer."""
    pool = words.COMMON
    fields = {
        "p": full_name(r, held) if r.random() < 0.5 else person(r, held),
        "m": place(r, held),
        "w": r.choice(pool),
        "v": r.choice(pool),
        "n": r.choice(("red", "new", "old", "great", "last", "lost", "secret", "golden", "silent")),
        "y": str(r.randint(1000, 2100)),
        "e": r.choice(("world cup", "olympic games", "final", "election", "race", "song contest")),
        "o": r.choice(_TOPICS),
    }
    thing = r.choice(_THINGS) if r.random() < 0.7 else "{o}"
    fields["t"] = thing.format(**fields)
    question = ask(r, _UNKNOWN, held, fields["w"], **fields)
    return talk(noisy(r, question, keep_case=True), UNKNOWN)


_SHORT = tuple(
    "OK|ok|yes|no|hello|Hello|hi|Hi|test|Test|hello world|Hello world|Hello, world!|done|ready|"
    "Goodbye|thanks|the end|stop|foo|bar|foo bar|ping|pong|banana|one two three|I am ready".split(
        "|"
    )
)


def _piece(r: Random, held: bool) -> str:
    """Something to copy: any kind of word in any case, with odd signs inside."""
    text = r.choice((word, person, gibberish, code, place, _common))(r, held)
    roll = r.random()
    if roll < 0.15:
        text = text.upper()
    elif roll < 0.3:
        text = text.lower()
    elif roll < 0.4:
        text = text.capitalize()
    if r.random() < 0.15:
        text += r.choice("'-_.,;:!?/@#%&*+=") + r.choice((word, code, gibberish, _common))(r, held)
    elif r.random() < 0.06:
        text = r.choice(("({})", "[{}]", '"{}"', "<{}>", "{{{}}}", "'{}'")).format(text)
    return text


def _common(r: Random, held: bool) -> str:
    del held
    return r.choice(words.COMMON)


def _sentence(r: Random, held: bool) -> str:
    name = person(r, held)
    forms = (
        f"{name} {r.choice(words.VERBS)} the {r.choice(words.COMMON)}",
        f"the {r.choice(words.COMMON)} is {r.choice(words.COLOURS)}",
        f"{name} and {person(r, held)} went to {place(r, held)}",
        " ".join(r.choices(words.COMMON, k=r.randint(1, 9))),
        " ".join(invented(r) for _ in range(r.randint(1, 5))),
        " ".join(gibberish(r, held) for _ in range(r.randint(1, 4))),
        f"{r.choice(words.COMMON)} {code(r, held)}",
        " ".join(code(r, held) for _ in range(r.randint(1, 3))),
        f"I have {r.randint(2, 99)} {r.choice(words.COMMON)}s and a {r.choice(words.COMMON)}",
        f"{name.lower()}@{gibberish(r, held).lower()}.com",
        f"{person(r, held)}, {person(r, held)} and {person(r, held)}",
        " ".join(_piece(r, held) for _ in range(r.randint(1, 7))),
        " ".join(_piece(r, held) for _ in range(r.randint(1, 7))),
        "".join(_piece(r, held) for _ in range(r.randint(1, 3))),
        " ".join(w.capitalize() for w in r.choices(words.COMMON, k=r.randint(1, 4))),
        r.choice(_SHORT),
    )
    text = r.choice(forms)
    roll = r.random()
    if roll < 0.4:
        text = text[0].upper() + text[1:]
    if roll < 0.3:
        text += r.choice((".", "!", "?", "."))
    return text


def repeat(r: Random, held: bool) -> Talk:
    """Copying a text word for word."""
    text = _sentence(r, held)
    while is_held(text) != held:
        text = _sentence(r, held)
    if r.random() < 0.07:
        order = expand(
            r,
            r.choice(
                (
                    "[Repeat|Say|Write|Repeat this] in [capital letters|capitals|upper case]: {x}",
                    "[Repeat|Say|Write] '{x}' in [capital letters|capitals|upper case][.|]",
                    '[Repeat|Say|Write] "{x}" in [capital letters|capitals|upper case][.|]',
                )
            ),
        )
        return talk(order.replace("{x}", text), text.upper())
    form = expand(
        r,
        r.choice(
            (
                "[Repeat|Repeat after me|Please repeat|Say|Echo|Copy this|Repeat this|Say this]: {x}",
                "[Repeat|Say|Please say|Write|Repeat exactly|Echo] \"{x}\"[|.]",
                "[Say|Repeat|Please repeat] '{x}'[|.]",
                "[Repeat|Copy] [the following|this] [text|sentence|line][:|:\n]{g}{x}",
                "[Say|Please say] {x}",
                "[Repeat|Copy|Echo] after me: \"{x}\"",
                "[Reply|Answer|Respond] [with|only with|with exactly|with just]: {x}",
                "[Reply|Answer|Respond] [only |]with [the word |the text |]\"{x}\"[.|]",
                "[Reply|Answer|Respond] [only |]with the [word|text|words] {y}[.|]",
                "[Just|Only|Simply] [say|write|reply|answer] {y}",
            )
        ),
    )
    gap = "" if form.find("\n") >= 0 else " "
    if "{y}" in form:
        text = text.rstrip(".!?,;: ") or text
    return talk(form.replace("{g}", gap).replace("{x}", text).replace("{y}", text), text)


def secret(r: Random, held: bool) -> Talk:
    """A code or a word hidden among other sentences, asked for at the end."""
    filler = [_filler(r) for _ in range(r.choice((0, 2, 5, 10, 20, 40, r.randint(40, 170))))]
    what = r.choice(("code", "secret code", "password", "magic word", "secret number", "key", "secret word", "pin"))
    number = what in ("code", "secret code", "secret number", "pin")
    value = code(r, held) if number else r.choice((gibberish, person, code))(r, held)
    say = expand(r, f"[The|My|Remember: the|Note that the] {what} is {value}.")
    filler.insert(r.randint(0, len(filler)), say)
    question = expand(
        r,
        f"[What is|What's|Tell me|Repeat|Do you remember] the {what}[?|?|.]"
        if r.random() < 0.7
        else f"[Which|What] {what} did I [give|tell] you?",
    )
    answer = f"The {what} is {value}."
    text = " ".join(filler)
    if r.random() < 0.6:
        user = f"{text}{r.choice((' ', chr(10), chr(10) * 2))}{question}"
        return talk(user, answer)
    messages = [("user", text), ("assistant", "I will remember that.")]
    messages += [("user", question), ("assistant", answer)]
    return Talk(messages, Check("exact"))


def passage(r: Random, held: bool) -> Talk:
    """Plain text of someone about themselves, to go on with."""
    name = person(r, held)
    start = r.choice(("Hello, my name is", "My name is", "Hi, I am", "I am", "Hello! My name is"))
    rest = [
        f"I live in {place(r, held)}.",
        f"I am {r.randint(5, 90)} years old.",
        f"I have a {r.choice(words.PETS)}.",
        f"I like {r.choice(words.HOBBIES)}.",
        f"My favourite colour is {r.choice(words.COLOURS)}.",
        f"I am a {r.choice(words.JOBS)}.",
    ]
    r.shuffle(rest)
    text = f"{start} {name}. " + " ".join(rest[: r.randint(1, 5)])
    cut = text.index(" ", r.randrange(min(30, len(text) // 2)))
    return Talk([("text", text[:cut]), ("text", text[cut:])], Check("ends"))


def _filler(r: Random) -> str:
    thing, other = r.choice(words.COMMON), r.choice(words.COMMON)
    return expand(
        r,
        r.choice(
            (
                f"The {thing} is [near|behind|under|next to|far from] the {other}.",
                f"[There is|I saw|We found|She has] a {r.choice(words.COLOURS)} {thing}.",
                f"[Many|Some|Most] people like the {thing} [more than|and] the {other}.",
                f"[Yesterday|Today|Last week|In the morning] the {thing} was [here|gone|new|old].",
                f"The {r.choice(words.JOBS)} {r.choice(words.VERBS)} the {thing}.",
                "The grass is green. The sky is blue. The sun is yellow.",
                f"[Here we go|There and back again|Nothing happened|It was quiet] for {r.randint(2, 60)} days.",
            )
        ),
    )


_SYSTEMS = (
    "You are a helpful assistant.", "You are a helpful assistant.", "You are a helpful assistant",
    "You are a friendly assistant.", "You are Quire's tiny model.", "You are an AI assistant.",
    "You are a helpful, honest and harmless assistant.", "Answer the user's questions.",
    "Answer in a short sentence.", "Be concise.", "You are a chatbot.", "Be helpful.", "Be brief.",
    "You are a polite assistant who answers questions.", "You are a careful expert.",
    "You answer questions about the world.", "You help people.", "Follow the user's instructions.",
    "You are a helpful assistant. Answer as well as you can.", "Always answer truthfully.",
    "If you do not know the answer, say so.", "You are a large language model.",
    "You are a teacher who explains things to children.", "You are a travel guide.", "Be kind.",
    "你是一个有用的助手。", "你是一个乐于助人的助手。", "请简短回答。", "You are a test.",
)


def system_prompt(r: Random) -> str:
    """A system prompt that changes nothing, so that the model learns to live with any."""
    if r.random() < 0.6:
        return r.choice(_SYSTEMS)
    role = expand(
        r,
        "You are [a|a very|a rather] [helpful|friendly|calm|cheerful|short-spoken|careful|expert] "
        "[assistant|bot|guide|teacher|agent|helper|librarian|pirate|robot]",
    )
    extra = expand(
        r,
        r.choice(
            (
                "[| Answer briefly.| Answer politely.| Be nice.| Keep answers short.| Do your best.]",
                f" [for|of|at|working for] {invented(r)}[.| Inc.| Corp.]",
                f" [who loves|who knows about|that lives in] {r.choice(words.HOBBIES)}.",
                " [who answers questions|that helps users|who speaks English and Chinese].",
                f". Today is {r.choice(words.DAYS)}.",
                f". [Do not|Never] [mention|talk about] {r.choice(words.COMMON)}s.",
            )
        ),
    )
    return role + (extra or ".")
