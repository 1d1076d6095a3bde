"""Calls that a chat template leaves out of a history are written in the format that the model's
own calls are read in."""

from __future__ import annotations

import pytest

from quire.chat_template import ChatOptions, ChatRenderer
from quire.tools import Tools, detect_tool_format, tool_format
from tests.fakes import tokenizers
from tests.fakes.tool_texts import DEFINITIONS, NAMES, calls_of, content_of, read

ANSWERS = "{% for m in messages if m.role == 'assistant' %}{{ m.content }}{% endfor %}"
TEMPLATES = {
    "hermes": '{% if tools %}<tool_call>{"name": ..., "arguments": ...}</tool_call>{% endif %}',
    "granite": "{% if tools %}Respond with <|tool_call|> and a JSON list.{% endif %}",
    "internlm": "{% if tools %}<|plugin|>Respond with <|action_start|>.{% endif %}",
    "phi4_mini_json": "{% if tools %}<|tool|>{{ tools }}<|/tool|>{% endif %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_calls_are_written_as_they_are_read(name: str) -> None:
    template = TEMPLATES[name] + ANSWERS
    assert detect_tool_format(template) == name
    calls = [(NAMES[0], '{"city": "Zürich"}'), (NAMES[0], "{}")]
    turn = {
        "role": "assistant",
        "content": "So:",
        "tool_calls": [
            {"id": f"c{i}", "type": "function", "function": {"name": one, "arguments": arguments}}
            for i, (one, arguments) in enumerate(calls)
        ],
    }
    conversation = [{"role": "user", "content": "?"}, turn, {"role": "user", "content": "!"}]
    options = ChatOptions(template=template, add_generation_prompt=False)
    written = ChatRenderer(tokenizers.byte_level()).render(conversation, options).text
    assert written is not None
    events = read(tool_format(name).parser(Tools.of(DEFINITIONS)), [written])
    assert calls_of(events) == calls
    assert content_of(events).strip() == "So:"
