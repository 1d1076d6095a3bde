"""Owns dialogues with tools: one call, several, a call's result, and questions that need no tool."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from .base import Check, Message, Talk, expand, noisy
from .manners import UNKNOWN
from .memory import ack, draw_facts, introduction, questions, said
from .names import place
from .tool_kinds import KINDS, Args, Tool, Use, weather_use


def call_text(name: str, args: Args) -> str:
    """A call in Hermes form, as the chat template writes it."""
    body = json.dumps({"name": name, "arguments": args}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def _toolbox(r: Random, kinds: list[str]) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    for kind in kinds:
        tool = KINDS[kind][0](r)
        if all(t.name != tool.name for t in tools.values()):
            tools[kind] = tool
    return tools


def _offered(r: Random, first: str) -> dict[str, Tool]:
    others = [k for k in KINDS if k != first]
    r.shuffle(others)
    kinds = [first, *others[: r.choice((0, 0, 1, 1, 2, 3))]]
    tools = _toolbox(r, kinds)
    if "sum" in tools and "calculator" in tools:
        del tools["sum" if first == "calculator" else "calculator"]
    order = list(tools)
    r.shuffle(order)
    return {k: tools[k] for k in order}


def _defined(r: Random, tools: dict[str, Tool]) -> tuple[dict, ...]:
    return tuple(tool.schema(r) for tool in tools.values())


def _use(r: Random, tool: Tool, held: bool) -> Use:
    use = KINDS[tool.kind][1](r, tool, held)
    while len(json.dumps(use.args)) > 120:
        use = KINDS[tool.kind][1](r, tool, held)
    return use


def _question(r: Random, use: Use) -> str:
    return noisy(r, use.question, keep_case=True)


def _turns(r: Random, tool: Tool, use: Use) -> list[Message]:
    return [
        ("user", _question(r, use)),
        ("assistant", call_text(tool.name, use.args)),
        ("tool", use.result),
        ("assistant", use.answer),
    ]


def _kind(r: Random) -> str:
    return r.choice(("weather", "weather", "weather", "calculator", "calculator", "time", "search",
                     "timer", "stock", "record", "record", "sum", "mail"))


def one_call(r: Random, held: bool, kind: str | None = None) -> Talk:
    """A question that needs a tool: the checked answer is the call."""
    tools = _offered(r, kind or _kind(r))
    tool = tools[kind] if kind else r.choice(list(tools.values()))
    use = _use(r, tool, held)
    call = call_text(tool.name, use.args)
    messages: list[Message] = []
    if r.random() < 0.2:
        start = introduction(r, False)
        messages = list(start.messages)
    if r.random() < 0.2:
        other = r.choice(list(tools.values()))
        messages += _turns(r, other, _use(r, other, False))
    messages += [("user", _question(r, use)), ("assistant", call)]
    return Talk(messages, Check("calls"), tools=_defined(r, tools))


def recall_after_call(r: Random, held: bool) -> Talk:
    """The user says something, a tool is used, then the user asks what they said."""
    facts = draw_facts(r, held, r.choice((1, 1, 2)))
    order = list(facts)
    tools = _offered(r, _kind(r))
    messages: list[Message] = [("user", said(r, facts, order)), ("assistant", ack(facts, order))]
    for _ in range(r.choice((1, 1, 2))):
        tool = r.choice(list(tools.values()))
        messages += _turns(r, tool, _use(r, tool, False))
    done = questions(r, facts, messages)
    return Talk(done.messages, done.check, tools=_defined(r, tools))


def weather_call(r: Random, held: bool) -> Talk:
    """A call of a weather tool."""
    return one_call(r, held, "weather")


def calculator_call(r: Random, held: bool) -> Talk:
    """A call of a calculator."""
    return one_call(r, held, "calculator")


def with_result(r: Random, held: bool) -> Talk:
    """A call, its result and the answer made from it; now and then a second round."""
    tools = _offered(r, _kind(r))
    tool = r.choice(list(tools.values()))
    use = _use(r, tool, held)
    messages = _turns(r, tool, use)
    if use.about and tool.kind == "weather" and r.random() < 0.25:
        again = weather_use(r, tool, held)
        key = next(k for k in tool.properties if k != "unit")
        args: Args = {**use.args, key: again.about}
        short = expand(r, "[And|What about|How about|And what about] [|in ]{c}?").format(c=again.about)
        messages += [("user", short), ("assistant", call_text(tool.name, args)),
                     ("tool", again.result), ("assistant", again.answer)]
        use = again
    return Talk(messages, Check("exact"), tools=_defined(r, tools))


def two_calls(r: Random, held: bool) -> Talk:
    """The weather in two or three cities at once, with a call and a result for each."""
    tools = _offered(r, "weather")
    tool = tools["weather"]
    uses = [weather_use(r, tool, held) for _ in range(r.choice((2, 2, 2, 3)))]
    key = next(k for k in tool.properties if k != "unit")
    fixed: Args = {"unit": "celsius"} if "unit" in tool.required else {}
    calls = "\n".join(call_text(tool.name, {key: use.about, **fixed}) for use in uses)
    a, b = ", ".join(use.about for use in uses[:-1]), uses[-1].about
    question = expand(
        r,
        r.choice(("[What is|What's|How is|Tell me|Compare|Check|Give me] the weather in ",
                  "[Weather in|Weather for|Is it raining in|How warm is it in] "))
        + r.choice((f"{a} and {b}", f"{a} and in {b}", f"both {a} and {b}"))
        + "[?|?|.| today?]",
    )
    messages: list[Message] = [("user", question), ("assistant", calls)]
    if r.random() < 0.5:
        return Talk(messages, Check("calls"), tools=_defined(r, tools))
    answer = " ".join(use.answer for use in uses)
    messages += [*(("tool", use.result) for use in uses), ("assistant", answer)]
    return Talk(messages, Check("exact"), tools=_defined(r, tools))


def no_tool_needed(r: Random, held: bool, other: Callable[[Random, bool], Talk]) -> Talk:
    """Tools are offered, but the question, drawn by ``other``, needs none."""
    kinds = list(KINDS)
    r.shuffle(kinds)
    base = other(r, held)
    text = " ".join(content for role, content in base.messages if role == "user")
    kinds = kinds[: r.choice((1, 1, 2, 3))]
    if any(ch.isdigit() for ch in text) or "search" in text.lower():
        kinds = [k for k in kinds if k not in ("calculator", "search", "timer", "stock", "record", "sum")]
        kinds = kinds or ["weather"]
    if any(w in text.lower() for w in ("weather", "time", "find", "look", "search", "price", "date")):
        kinds = ["record"] if any(ch.isdigit() for ch in text) else ["calculator"]
    tools = _toolbox(r, kinds)
    return Talk(base.messages, base.check, base.system, _defined(r, tools))


def wrong_tool(r: Random, held: bool) -> Talk:
    """A question for a tool that is not among those offered."""
    asked = r.choice(("weather", "time"))
    missing = KINDS[asked][0](r)
    use = KINDS[asked][1](r, missing, held)
    kinds = [k for k in ("calculator", "timer") if r.random() < 0.7] or ["calculator"]
    tools = _toolbox(r, kinds)
    question = use.question if asked == "time" else f"What is the weather in {place(r, held)}?"
    messages: list[Message] = [("user", noisy(r, question, True)), ("assistant", UNKNOWN)]
    return Talk(messages, Check("exact"), tools=_defined(r, tools))
