"""Answers with calls of tools as models of each format write them: the other way round of a parser.

Nothing here is taken from the parsers; the forms are those of the models' chat templates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from quire.tools import CallArguments, CallBegin, CallEnd, Content, Event, ToolParser

Call = tuple[str, dict[str, Any]]

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "exact": {"type": "boolean"},
        "places": {"type": "array", "items": {"type": "string"}},
        "more": {"type": "object"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
}
NAMES = ("get_weather", "get_time", "search.web")
DEFINITIONS = [
    {"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in NAMES
]


def as_object(call: Call, arguments: str = "arguments") -> str:
    return json.dumps({"name": call[0], arguments: call[1]}, ensure_ascii=False)


def in_function(call: Call, arguments: str = "arguments") -> str:
    """As definitions of tools are written."""
    function = {"name": call[0], arguments: call[1]}
    return json.dumps({"type": "function", "function": function}, ensure_ascii=False)


def as_list(calls: Sequence[Call]) -> str:
    return "[" + ", ".join(map(as_object, calls)) + "]"


def hermes(
    calls: Sequence[Call], tag: str = "tool_call", written: Callable[[Call], str] = as_object
) -> str:
    return "\n".join(f"<{tag}>\n{written(one)}\n</{tag}>" for one in calls)


def llama3(calls: Sequence[Call], written: Callable[[Call, str], str] = as_object) -> str:
    return "; ".join(written(one, "parameters") for one in calls)


def mistral_names(calls: Sequence[Call]) -> str:
    return "".join(f"[TOOL_CALLS]{name}{dumped(arguments)}" for name, arguments in calls)


def mistral_args(calls: Sequence[Call]) -> str:
    return "".join(f"[TOOL_CALLS]{name}[ARGS]{dumped(arguments)}" for name, arguments in calls)


def granite_20b(calls: Sequence[Call]) -> str:
    return " ".join(f"<function_call> {as_object(one)}" for one in calls)


def internlm(calls: Sequence[Call]) -> str:
    texts = (as_object(one, "parameters") for one in calls)
    return "\n".join(f"<|action_start|><|plugin|>\n{text}<|action_end|>" for text in texts)


def pythonic(calls: Sequence[Call]) -> str:
    return "[" + ", ".join(map(_python, calls)) + "]"


def olmo3(calls: Sequence[Call]) -> str:
    return "<function_calls>\n" + "\n".join(map(_python, calls)) + "\n</function_calls>"


def _python(call: Call) -> str:
    return call[0] + "(" + ", ".join(f"{key}={value!r}" for key, value in call[1].items()) + ")"


def qwen3_xml(calls: Sequence[Call], tag: str = "tool_call", end: str = "</parameter>\n") -> str:
    """With an empty ``end``, parameters are never closed, which the models forget at times."""
    texts = []
    for name, arguments in calls:
        values = "".join(
            f"<parameter={key}>\n{_plain(value)}\n{end}" for key, value in arguments.items()
        )
        texts.append(f"<{tag}>\n<function={name}>\n{values}</function>\n</{tag}>")
    return "\n".join(texts)


def glm45(calls: Sequence[Call]) -> str:
    texts = []
    for name, arguments in calls:
        values = "".join(
            f"<arg_key>{key}</arg_key>\n<arg_value>{_plain(value)}</arg_value>\n"
            for key, value in arguments.items()
        )
        texts.append(f"<tool_call>{name}\n{values}</tool_call>")
    return "\n".join(texts)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else dumped(value)


def deepseek_v3(calls: Sequence[Call]) -> str:
    texts = [
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n"
        f"```json\n{dumped(arguments)}\n```<｜tool▁call▁end｜>"
        for name, arguments in calls
    ]
    return "<｜tool▁calls▁begin｜>" + "\n".join(texts) + "<｜tool▁calls▁end｜>"


def deepseek_v31(calls: Sequence[Call]) -> str:
    texts = [
        f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{dumped(arguments)}<｜tool▁call▁end｜>"
        for name, arguments in calls
    ]
    return "<｜tool▁calls▁begin｜>" + "".join(texts) + "<｜tool▁calls▁end｜>"


def kimi_k2(calls: Sequence[Call], section: str = "tool_calls_section") -> str:
    texts = [
        f"<|tool_call_begin|>functions.{name}:{i}<|tool_call_argument_begin|>"
        f"{dumped(arguments)}<|tool_call_end|>"
        for i, (name, arguments) in enumerate(calls)
    ]
    return f"<|{section}_begin|>" + "".join(texts) + f"<|{section}_end|>"


def gpt_oss(calls: Sequence[Call], kind: str = " <|constrain|>json") -> str:
    """``kind``: what stands behind the name, the type of the body and slips of the model."""
    return "".join(
        f"<|start|>assistant<|channel|>commentary to=functions.{name}"
        f"{kind}<|message|>{dumped(arguments)}<|call|>"
        for name, arguments in calls
    )


def dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# A form of a format -> the name of its parser, and who writes it.
FORMS: dict[str, tuple[str, Callable[[Sequence[Call]], str]]] = {
    "hermes": ("hermes", hermes),
    "hermes function": ("hermes", lambda calls: hermes(calls, written=in_function)),
    "mistral list": ("mistral", lambda calls: f"[TOOL_CALLS] {as_list(calls)}"),
    "mistral names": ("mistral", mistral_names),
    "mistral args": ("mistral", mistral_args),
    "llama3_json": ("llama3_json", llama3),
    "llama3_json tag": ("llama3_json", lambda calls: f"<|python_tag|>{llama3(calls)}"),
    "llama3_json function": ("llama3_json", lambda calls: llama3(calls, in_function)),
    "granite": ("granite", lambda calls: f"<|tool_call|>{as_list(calls)}"),
    "granite-20b-fc": ("granite-20b-fc", granite_20b),
    "internlm": ("internlm", internlm),
    "jamba": ("jamba", lambda calls: f"<tool_calls>{as_list(calls)}\n</tool_calls>"),
    "phi4_mini": ("phi4_mini", lambda calls: f"functools{as_list(calls)}"),
    "phi4_mini marks": (
        "phi4_mini",
        lambda calls: f"<|tool_call|>{as_list(calls)}<|/tool_call|>",
    ),
    "pythonic": ("pythonic", pythonic),
    "llama4_pythonic": (
        "llama4_pythonic",
        lambda calls: f"<|python_start|>{pythonic(calls)}<|python_end|>",
    ),
    "olmo3": ("olmo3", olmo3),
    "qwen3": ("qwen3", hermes),
    "qwen3_coder": ("qwen3_coder", qwen3_xml),
    "qwen3_coder open": ("qwen3_coder", lambda calls: qwen3_xml(calls, end="")),
    "seed_oss": ("seed_oss", lambda calls: qwen3_xml(calls, "seed:tool_call")),
    "longcat": ("longcat", lambda calls: hermes(calls, "longcat_tool_call")),
    "glm45": ("glm45", glm45),
    "deepseek_v3": ("deepseek_v3", deepseek_v3),
    "deepseek_v31": ("deepseek_v31", deepseek_v31),
    "kimi_k2": ("kimi_k2", kimi_k2),
    "kimi_k2 singular": ("kimi_k2", lambda calls: kimi_k2(calls, "tool_call_section")),
    "openai": ("openai", gpt_oss),
    "openai channel": (
        "openai",
        lambda calls: gpt_oss(calls, "<|channel|>commentary <|constrain|>json"),
    ),
    "openai code": ("openai", lambda calls: gpt_oss(calls, " code")),
}


def read(parser: ToolParser, pieces: Sequence[str]) -> list[Event]:
    """All events of an answer that comes in these pieces; what belongs together is one event."""
    events = [event for piece in pieces for event in parser.feed(piece)]
    return joined([*events, *parser.finish()])


def joined(events: Sequence[Event]) -> list[Event]:
    whole: list[Event] = []
    for event in events:
        last = whole[-1] if whole else None
        if isinstance(event, Content) and isinstance(last, Content):
            whole[-1] = Content(last.text + event.text)
        elif isinstance(event, CallArguments) and isinstance(last, CallArguments):
            whole[-1] = CallArguments(event.index, last.json_fragment + event.json_fragment)
        else:
            whole.append(event)
    return whole


def content_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Content))


def calls_of(events: Sequence[Event]) -> list[tuple[str, str]]:
    """Names and arguments as text; checks that the events of each call stand in order."""
    calls: list[tuple[str, str]] = []
    is_open = False
    for event in events:
        if isinstance(event, CallBegin):
            assert not is_open and event.index == len(calls)
            calls.append((event.name, ""))
            is_open = True
        elif isinstance(event, CallArguments):
            assert is_open and event.index == len(calls) - 1
            calls[-1] = (calls[-1][0], calls[-1][1] + event.json_fragment)
        elif isinstance(event, CallEnd):
            assert is_open and event.index == len(calls) - 1
            is_open = False
    assert not is_open
    return calls


def cut(text: str, places: Sequence[int]) -> list[str]:
    """The text in pieces; places beyond its end do nothing."""
    ends = sorted({min(place, len(text)) for place in places} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
