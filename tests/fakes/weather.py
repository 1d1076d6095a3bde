"""A question that the bundled model answers with a call of a weather tool, and what comes then."""

from __future__ import annotations

from typing import Any

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "The city"}},
    "required": ["city"],
}
DESCRIPTION = "Get the current weather in a city."
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "description": DESCRIPTION, "parameters": PARAMETERS},
}
QUESTION = "What is the weather in Oslo?"
ARGUMENTS = {"city": "Oslo"}
RESULT = '{"temperature": 21, "condition": "sunny"}'
TWO_CITIES = "What is the weather in Oslo and in Lima?"
ANSWER_PARTS = ("Oslo", "21", "sunny")  # of the answer made from the result
