"""The tool calls of a conversation, in the forms that chat templates expect.

Knows nothing about templates but the marks in them.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_INVALID = "INVALID_JSON"  # key for arguments that are not a JSON object


def call_with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    """The call with its arguments parsed from JSON text, OpenAI's form, to an object."""
    function = call["function"]
    arguments = function.get("arguments") or ""
    if isinstance(arguments, str):
        arguments = arguments_object(arguments)
    return {**call, "function": {**function, "arguments": arguments}}


def call_with_text(call: Mapping[str, Any]) -> dict[str, Any]:
    """The call with its arguments as JSON text, as it was given where it was text."""
    function = call["function"]
    arguments = function.get("arguments") or {}
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}


def arguments_object(text: str) -> dict[str, Any]:
    """The arguments of a call as an object. Text that is not a JSON object, or has half a surrogate
    pair, is kept under one key, so that a conversation with such a call can go on."""
    try:
        value = json.loads(text or "{}")
        if "\\u" in text:  # may spell half of a surrogate pair, which no encoding has
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {_INVALID: text}


def calls_as_text(calls: Sequence[Mapping[str, Any]], template: str) -> str:
    """The calls as a model writes them that knows the marks in the template; without marks, in the
    format that most models know."""
    functions = [call_with_text(call)["function"] for call in calls]
    names = [json.dumps(function["name"], ensure_ascii=False) for function in functions]
    pairs = [(name, one["arguments"]) for name, one in zip(names, functions, strict=True)]
    objects = [f'{{"name": {name}, "arguments": {arguments}}}' for name, arguments in pairs]
    listed = f"[{', '.join(objects)}]"
    if "<|/tool|>" in template or "<|/tool_call|>" in template:  # Phi-4-mini
        return f"<|tool_call|>{listed}<|/tool_call|>"
    if "<|tool_call|>" in template:  # Granite 3
        return f"<|tool_call|>{listed}"
    if "<|plugin|>" in template:  # InternLM 2
        objects = [f'{{"name": {name}, "parameters": {arguments}}}' for name, arguments in pairs]
        return "\n".join(f"<|action_start|><|plugin|>\n{one}<|action_end|>" for one in objects)
    return "\n".join(f"<tool_call>\n{one}\n</tool_call>" for one in objects)


def arranged(conversation: list[dict[str, Any]], *, reads_one_call: bool) -> list[dict[str, Any]]:
    """The messages with results of tools in the order of their calls. For a template that reads
    only one call, each further call is a message of its own, before its result."""
    messages: list[dict[str, Any]] = []
    waiting = deque(conversation)
    while waiting:
        message = waiting.popleft()
        if not (calls := message.get("tool_calls")):
            messages.append(message)
            continue
        results = []
        while waiting and waiting[0]["role"] == "tool":
            results.append(waiting.popleft())
        numbers = _numbers_of_calls(results, calls)
        results = [results[i] for i in sorted(range(len(results)), key=numbers.__getitem__)]
        if reads_one_call and len(calls) > 1:
            messages += _one_by_one(message, results, sorted(numbers))
        else:
            messages += [message, *results]
    return messages


def _numbers_of_calls(results: list[dict[str, Any]], calls: list[dict[str, Any]]) -> list[int]:
    """For each result the number of its call: by its id if all have known ids, else by order."""
    numbers = {str(call.get("id")): i for i, call in enumerate(calls)}
    ids = [str(result.get("tool_call_id")) for result in results]
    if len(numbers) == len(calls) and numbers.keys() >= set(ids):
        return [numbers[id] for id in ids]
    return [min(i, len(calls) - 1) for i in range(len(results))]


def _one_by_one(
    message: dict[str, Any], results: list[dict[str, Any]], numbers: list[int]
) -> Iterator[dict[str, Any]]:
    """One message per call, each before its results, whose calls are ``numbers``."""
    results_of = defaultdict(list)
    for result, number in zip(results, numbers, strict=True):
        results_of[number].append(result)
    empty = [] if isinstance(message["content"], list) else ""
    for i, call in enumerate(message["tool_calls"]):
        head = message if i == 0 else {"role": message["role"], "content": empty}
        yield {**head, "tool_calls": [call]}
        yield from results_of[i]
