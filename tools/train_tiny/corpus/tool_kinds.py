"""Owns the kinds of tools that dialogues offer: their definitions, questions, results, answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from . import words
from .base import expand
from .names import code, invented, person, place, word

Args = dict[str, str | int | float]


class Use(NamedTuple):
    """One use of a tool: how it is asked for, the arguments, its result and the answer to that."""

    question: str
    args: Args
    result: str
    answer: str
    about: str
    """What a short follow-up (``And in Rome?``) would name; empty where there is none."""


class Tool(NamedTuple):
    """One tool of a dialogue."""

    kind: str
    name: str
    description: str
    properties: dict[str, dict]
    required: list[str]

    def schema(self, r: Random) -> dict:
        """The definition in OpenAI's form, its keys in one of the usual orders."""
        parameters: dict = {"type": "object", "properties": self.properties}
        if self.required and r.random() < 0.9:
            parameters["required"] = self.required
        if r.random() < 0.1:
            parameters["additionalProperties"] = False
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        if not self.description or r.random() < 0.06:
            del function["description"]
        roll = r.random()
        if roll < 0.12:
            function = {k: function[k] for k in sorted(function)}
        elif roll < 0.18:
            function = {k: function[k] for k in reversed(function)}
        outer = {"type": "function", "function": function}
        return outer if r.random() < 0.85 else {"function": function, "type": "function"}


def _say(r: Random, *templates: str) -> str:
    return expand(r, r.choice(templates))


def _function_name(r: Random, verbs: str, nouns: str) -> str:
    verb, noun = r.choice(verbs.split()), r.choice(nouns.split())
    style = r.random()
    if style < 0.75:
        return f"{verb}_{noun}"
    if style < 0.88:
        return verb + "".join(p.capitalize() for p in noun.split("_"))
    return noun if style < 0.95 else f"{noun}_{invented(r).lower()}"


CONDITIONS = tuple(
    "sunny|cloudy|rainy|snowy|windy|foggy|clear|stormy|partly cloudy|overcast|light rain|hot|cold|"
    "humid|heavy rain|clear sky|thunderstorms|mild|dry|hazy".split("|")
)


def weather_tool(r: Random) -> Tool:
    """The weather in a city, with or without a unit."""
    name = "get_weather"
    if r.random() < 0.5:
        name = _function_name(
            r, "get fetch check lookup query find", "weather current_weather forecast weather_info"
        )
    key = r.choice(("city", "city", "city", "location", "place", "town", "city_name"))
    props: dict[str, dict] = {key: {"type": "string"}}
    if r.random() < 0.6:
        props[key]["description"] = _say(
            r, "[The name of the city|The city|City name|Name of the city|The city to look up]",
            "The city, e.g. [Paris|London|San Francisco]", "[Which city|The place]",
        )
    required = [key]
    if r.random() < 0.4:
        unit: dict = {"type": "string", "enum": ["celsius", "fahrenheit"]}
        if r.random() < 0.4:
            unit["description"] = _say(r, "[The unit|Unit of the temperature|The temperature unit]")
        props["unit"] = unit
        if r.random() < 0.12:
            required = [key, "unit"]
    description = _say(
        r, "[Get|Gets|Returns|Look up|Fetch|Find] the [weather|current weather|weather now] "
        "[in|for|of] a [city|given city|location|place][|.]",
        "[Weather|Current weather] [in|for] a city[|.]",
    )
    return Tool("weather", name, description, props, required)


_WEATHER_ASK = (
    "[What is|What's|How is|How's] the weather [|like |now |today ]in {c}[| today| now| right now]?",
    "[Tell me|Give me|Check|Get|Show me] the [weather|current weather] [in|for] {c}[.|]",
    "[What is|What's] the [temperature|forecast] [in|for] {c}[| today| now]?",
    "Is it [raining|cold|warm|sunny|hot|snowing] in {c}[| today| now]?",
    "Do I need [an umbrella|a coat] in {c}[| today]?",
    "[How warm|How hot|How cold] is it in {c}[| now]?",
    "{c} weather[|?]",
    "[Weather in|Weather for|The weather in] {c}[?||, please]",
    "I [am going to|will visit|travel to] {c}. [What is|How is|What's] the weather there?",
    "[Can you|Could you|Please] [tell me|check|find out] the weather in {c}[?|.]",
)


def _weather_result(r: Random, city: str) -> tuple[str, str]:
    degrees: int | float = r.randint(-15, 42) if r.random() < 0.8 else r.randint(-100, 400) / 10
    sky = r.choice(CONDITIONS) if r.random() < 0.9 else invented(r).lower()
    warm = r.choice(("temperature", "temperature", "temp", "temp_c", "degrees", "temperature_c"))
    look = r.choice(("condition", "conditions", "weather", "description", "sky", "forecast", "summary"))
    roll = r.random()
    if roll < 0.7:
        data: dict = {warm: degrees, look: sky}
        answer = f"It is {degrees} degrees and {sky} in {city}."
        if roll < 0.08:
            del data[look]
            answer = f"It is {degrees} degrees in {city}."
        elif roll < 0.14:
            del data[warm]
            answer = f"It is {sky} in {city}."
        elif r.random() < 0.25:
            data = {look: sky, warm: degrees}
        if r.random() < 0.45:
            data = {r.choice(("city", "city", "location")): city, **data}
        if r.random() < 0.25:
            data["unit"] = r.choice(("celsius", "celsius", "C", "fahrenheit"))
        if r.random() < 0.15:
            data[r.choice(("humidity", "wind", "wind_kmh"))] = r.randint(1, 99)
        separators = (",", ":") if r.random() < 0.12 else None
        return json.dumps(data, ensure_ascii=False, separators=separators), answer
    if roll < 0.75:
        problem = r.choice(("city not found", "service unavailable", "no data", "time out"))
        return json.dumps({"error": problem}), f"The tool reported an error: {problem}."
    text = _say(
        r, f"{degrees} degrees and {sky}", f"[|{city}: ]{sky}, {degrees}[°C| C|°F| degrees| °C]",
        f"{degrees}[°C|C| C] and {sky}", f"{sky.capitalize()}, {degrees}[°C| degrees]", sky, f"{degrees}[°C| C]",
        f"It is {sky} and {degrees} degrees[|.]",
    )
    return text, f"The weather in {city}: {text.removesuffix('.')}."


def weather_use(r: Random, tool: Tool, held: bool) -> Use:
    """A question about the weather in a city."""
    city = place(r, held)
    if r.random() < 0.08:
        city += ", " + r.choice(("CA", "TX", "NY", "UK", "USA", "France", "Germany", "Japan", "Italy"))
    question = _say(r, *_WEATHER_ASK).format(c=city)
    key = next(k for k in tool.properties if k != "unit")
    args: Args = {key: city}
    if "unit" in tool.properties:
        unit = r.choice(("celsius", "fahrenheit"))
        if r.random() < 0.35:
            question = f"{question.rstrip('?. ')} in {unit.capitalize() if r.random() < 0.5 else unit}?"
            args["unit"] = unit
        elif "unit" in tool.required:
            args["unit"] = "celsius"
    result, answer = _weather_result(r, city)
    return Use(question, args, result, answer, city)


def calculator_tool(r: Random) -> Tool:
    """A calculator."""
    name = "calculator"
    if r.random() < 0.5:
        name = _function_name(r, "calculate compute evaluate run do", "expression math calculation calc")
    key = r.choice(("expression", "expression", "expression", "formula", "expr", "input"))
    props: dict[str, dict] = {key: {"type": "string"}}
    if r.random() < 0.6:
        props[key]["description"] = _say(
            r, "[The expression|An expression|The arithmetic expression][| to evaluate| to compute][|, e.g. 2 + 2]"
        )
    description = _say(
        r, "[Calculate|Evaluate|Compute|Computes|Evaluates] [an|the|a given] [arithmetic |math |]expression[|.]",
        "[A calculator|Does arithmetic|Simple calculator][|.]",
    )
    return Tool("calculator", name, description, props, [key])


def calculator_use(r: Random, tool: Tool, held: bool) -> Use:
    """A calculation, its numbers of any size."""
    top = r.choice((20, 99, 999, 9999, 99999))
    a, b, c = (r.randint(0, top) for _ in range(3))
    sign, word = r.choice((("+", "plus"), ("-", "minus"), ("*", "times"), ("/", "divided by")))
    expression, value = f"{a} {sign} {b}", {"+": a + b, "-": a - b, "*": a * b, "/": 0}[sign]
    shown = r.choice((expression, expression, f"{a}{sign}{b}", f"{a} {word} {b}"))
    if sign == "*" and r.random() < 0.2:
        shown = f"{a} x {b}"
    if r.random() < 0.15:
        expression = f"({a} + {b}) * {c}"
        shown = r.choice((expression, expression.replace(" ", "")))
        value = (a + b) * c
    elif r.random() < 0.12:
        value = round(a / 10 * b, 2)
        expression = f"{a / 10} * {b}"
        shown = r.choice((expression, f"{a / 10}*{b}", f"{a / 10} times {b}"))
    elif sign == "/":
        value = round(a / max(b, 1), 2)
    question = _say(
        r, "[What is|What's|Calculate|Compute|How much is] {e}[?|]", "[Please calculate|Work out|Evaluate] {e}[.|]",
        "{e}[| =|?|=]", "[Use the calculator|Can you calculate|Use the tool][: | for ]{e}",
        "[Tell me|I need] the result of {e}[.|]",
    ).format(e=shown)
    result = str(value)
    if r.random() < 0.4:
        result = json.dumps({r.choice(("result", "value", "answer")): value})
    key = next(iter(tool.properties))
    return Use(question, {key: expression}, result, f"The result is {value}.", "")


def time_tool(r: Random) -> Tool:
    """The time in a city."""
    key = r.choice(("city", "city", "location", "place"))
    name = _function_name(r, "get fetch check lookup", "time current_time local_time clock")
    return Tool("time", name, _say(r, "[Get|Returns|Look up] the [time|current time|local time] in a city[|.]"),
                {key: {"type": "string"}}, [key])


def time_use(r: Random, tool: Tool, held: bool) -> Use:
    """A question about the time in a city."""
    city = place(r, held)
    question = _say(
        r, "[What time is it|What is the time|What's the time] [now |]in {c}[?|]",
        "[Tell me|Check|Get] the [time|local time] in {c}[.|]", "[Time|Current time] in {c}[?|]",
    ).format(c=city)
    value = f"{r.randint(0, 23):02d}:{r.randint(0, 59):02d}"
    result = value if r.random() < 0.5 else json.dumps({"time": value})
    return Use(question, {next(iter(tool.properties)): city}, result, f"It is {value} in {city}.", city)


def search_tool(r: Random) -> Tool:
    """A search."""
    key = r.choice(("query", "query", "q", "text"))
    name = _function_name(r, "search find lookup", "web documents notes internet knowledge")
    return Tool("search", name, _say(r, "[Search|Look up] [the web|documents|a text|the internet][|.]"),
                {key: {"type": "string"}}, [key])


def search_use(r: Random, tool: Tool, held: bool) -> Use:
    """A request to search for something."""
    topic = " ".join(r.choices(words.COMMON, k=r.randint(1, 3)))
    topic = r.choice((topic, person(r, held), f"{topic} in {place(r, held)}"))
    question = _say(r, "[Search|Please search|Search the web] for {t}[.|]", "[Look up|Find|Find out about] {t}[.|]").format(t=topic)
    found = f"The {r.choice(words.COMMON)} {r.choice(words.VERBS)} the {r.choice(words.COMMON)}."
    return Use(question, {next(iter(tool.properties)): topic}, found, f"I found this: {found}", "")


def timer_tool(r: Random) -> Tool:
    """A timer."""
    key = r.choice(("minutes", "minutes", "duration", "duration_minutes"))
    name = _function_name(r, "set start create", "timer alarm countdown")
    return Tool("timer", name, _say(r, "[Set|Start] a timer[| for some minutes][|.]"),
                {key: {"type": "integer"}}, [key])


def timer_use(r: Random, tool: Tool, held: bool) -> Use:
    """A request to set a timer."""
    n = r.randint(1, 120)
    question = _say(r, "[Set|Start|Please set] a timer for {n} minutes[.|]", "[Wake me|Remind me|Call me] in {n} minutes[.|]").format(n=n)
    result = _say(r, "ok", "done", "{\"status\": \"ok\"}")
    return Use(question, {next(iter(tool.properties)): n}, result, "The timer is set.", "")


def stock_tool(r: Random) -> Tool:
    """The price of a share."""
    key = r.choice(("symbol", "symbol", "ticker", "company"))
    name = _function_name(r, "get fetch check lookup", "stock_price stock share_price quote price")
    return Tool("stock", name, _say(r, "[Get|Returns] the [price|current price] of a [stock|share][|.]"),
                {key: {"type": "string"}}, [key])


def stock_use(r: Random, tool: Tool, held: bool) -> Use:
    """A question about the price of a share."""
    symbol = "".join(r.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=r.randint(2, 4)))
    if "company" in tool.properties:
        symbol = person(r, held)
    question = _say(r, "[What is|What's|Get|Tell me|Check] the [stock price|share price|price] of {s}[?||.]",
                    "[How much is|What does] a share of {s}[ cost|][?|]").format(s=symbol)
    value = r.randint(1, 99999) / 100
    result = str(value) if r.random() < 0.4 else json.dumps({r.choice(("price", "value")): value})
    return Use(question, {next(iter(tool.properties)): symbol}, result, f"The price of {symbol} is {value}.", "")


_THINGS = (
    "email|balance|address|order|status|phone_number|salary|schedule|profile|birthday|score|invoice|"
    "account|contact|record|ticket|rating|level|report|color|location_of_user|team|manager|size"
).split("|")


def record_tool(r: Random) -> Tool:
    """A tool that looks up a fact about a person or number; only its definition says which."""
    thing = r.choice(_THINGS)
    key, kind = r.choice((("name", "string"), ("user", "string"), ("person", "string"),
                          ("id", "integer"), ("user_id", "integer"), ("number", "integer")))
    name = _function_name(r, "get fetch find lookup show read", thing)
    shown = thing.replace("_", " ")
    what = "a person" if kind == "string" else "a number"
    return Tool("record", name, _say(r, f"[Get|Returns|Look up|Find] the {shown} of {what}[|.]"),
                {key: {"type": kind}}, [key])


def record_use(r: Random, tool: Tool, held: bool) -> Use:
    """A question that a tool of `record_tool` answers."""
    key = next(iter(tool.properties))
    whole = tool.properties[key]["type"] == "integer"
    value: str | int = r.randint(1, 99999) if whole else person(r, held)
    thing = next((t for t in _THINGS if t.replace("_", " ") in tool.description), "record").replace("_", " ")
    shown = f"{r.choice(('number', 'id', 'user'))} {value}" if whole else str(value)
    question = _say(r, "[What is|What's|Get|Find|Show me|Tell me|Look up] the {t} of {v}[?||.]",
                    "[Get|Fetch|I need|Show] the {t} for {v}[.|]").format(t=thing, v=shown)
    found = str(r.choice((code(r, held), word(r, held), person(r, held))))
    result = found if r.random() < 0.5 else json.dumps({thing.replace(" ", "_"): found})
    return Use(question, {key: value}, result, f"The {thing} of {shown} is {found}.", "")


def sum_tool(r: Random) -> Tool:
    """A function of two numbers."""
    name, description = r.choice((("add", "Add two numbers"), ("multiply", "Multiply two numbers"),
                                  ("add_numbers", "The sum of two numbers"), ("subtract", "Subtract two numbers")))
    keys = r.choice((("a", "b"), ("x", "y"), ("first", "second")))
    kind = r.choice(("integer", "number"))
    return Tool("sum", name, description, {k: {"type": kind} for k in keys}, list(keys))


def sum_use(r: Random, tool: Tool, held: bool) -> Use:
    """A calculation with two numbers."""
    a, b = r.randint(0, r.choice((20, 99, 9999))), r.randint(0, r.choice((20, 99, 9999)))
    op = "+" if tool.name.startswith("add") else "*" if tool.name == "multiply" else "-"
    word_of = {"+": "plus", "*": "times", "-": "minus"}[op]
    orders = {"+": f"Add {a} and {b}", "*": f"Multiply {a} by {b}", "-": f"Subtract {b} from {a}"}
    question = r.choice((f"What is {a} {op} {b}?", f"What is {a} {word_of} {b}?", orders[op], f"{a} {word_of} {b}"))
    value = {"+": a + b, "*": a * b, "-": a - b}[op]
    result = str(value) if r.random() < 0.6 else json.dumps({"result": value})
    first, second = tool.properties
    return Use(question, {first: a, second: b}, result, f"The result is {value}.", "")


def mail_tool(r: Random) -> Tool:
    """A message to somebody."""
    keys = r.choice((("to", "subject"), ("recipient", "subject"), ("to", "message"), ("recipient", "text")))
    name = _function_name(r, "send write", "email message mail")
    return Tool("mail", name, _say(r, "[Send|Write] [an email|a message][| to someone][.|]"),
                {k: {"type": "string"} for k in keys}, list(keys))


def mail_use(r: Random, tool: Tool, held: bool) -> Use:
    """A request to send a message."""
    to = person(r, held)
    if r.random() < 0.5:
        to = f"{to.lower()}@{r.choice(('example', word(r, held)))}.{r.choice(('com', 'org', 'net'))}"
    first, second = tool.properties
    said = r.choice((r.choice(words.COMMON), "Hello", f"{r.choice(words.COMMON)} and {r.choice(words.COMMON)}",
                     f"See you on {r.choice(words.DAYS)}", word(r, held).capitalize()))
    kind = r.choice(("an email", "a message", "a mail"))
    label = second if r.random() < 0.7 else {"subject": "title"}.get(second, "words")
    question = _say(r, f"Send {kind} to {{t}} with [the |]{label} {{s}}[.|]",
                    f"Send {kind} to {{t}} with [the |]{label} '{{s}}'[.|]",
                    f"[Write|Please send] {{t}} {kind} with [the |]{label} \"{{s}}\"[.|]",
                    f"Send {kind} to {{t}}[:|,] {{s}}").format(t=to, s=said)
    return Use(question, {first: to, second: said}, _say(r, "ok", "sent", "{\"status\": \"sent\"}"),
               "The message is sent.", "")


KINDS: dict[str, tuple[Callable[[Random], Tool], Callable[[Random, Tool, bool], Use]]] = {
    "weather": (weather_tool, weather_use),
    "calculator": (calculator_tool, calculator_use),
    "time": (time_tool, time_use),
    "search": (search_tool, search_use),
    "timer": (timer_tool, timer_use),
    "stock": (stock_tool, stock_use),
    "record": (record_tool, record_use),
    "sum": (sum_tool, sum_use),
    "mail": (mail_tool, mail_use),
}
