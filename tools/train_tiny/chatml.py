"""Owns the chat template and its fast equivalent for training documents."""

from __future__ import annotations

import json

from .corpus.base import Message, Talk

END_OF_TEXT = "<|endoftext|>"
START = "<|im_start|>"
END = "<|im_end|>"
TOOL_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")

_TOOLS_HEAD = "# Tools\n\nYou can call these functions. Each line describes one:\n<tools>"
_TOOLS_TAIL = (
    "\n</tools>\n\nTo call a function, answer with its name and its arguments as JSON:\n"
    '<tool_call>\n{"name": "the function", "arguments": {"the argument": "its value"}}\n'
    "</tool_call>"
)


def _quoted(text: str) -> str:
    """A Jinja string literal."""
    return json.dumps(text).replace("'", "\\u0027")


CHAT_TEMPLATE = (
    """{%- set first = 1 if messages and messages[0].role == 'system' else 0 -%}
{%- if tools or first -%}
{{- '<|im_start|>system\\n' -}}
{%- if first -%}{{- messages[0].content -}}{%- endif -%}
{%- if tools -%}
{%- if first -%}{{- '\\n\\n' -}}{%- endif -%}
{{- @HEAD@ -}}
{%- for tool in tools -%}{{- '\\n' -}}{{- tool | tojson -}}{%- endfor -%}
{{- @TAIL@ -}}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages[first:] -%}
{%- if message.role == 'tool' -%}
{%- if loop.first or loop.previtem.role != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}
{{- '\\n<tool_response>\\n' -}}{{- message.content -}}{{- '\\n</tool_response>' -}}
{%- if loop.last or loop.nextitem.role != 'tool' -%}{{- '<|im_end|>\\n' -}}{%- endif -%}
{%- else -%}
{{- '<|im_start|>' -}}{{- message.role -}}{{- '\\n' -}}
{%- if message.content -%}{{- message.content -}}{%- endif -%}
{%- for item in message.tool_calls or [] -%}
{%- set call = item.function if item.function else item -%}
{%- if message.content or not loop.first -%}{{- '\\n' -}}{%- endif -%}
{{- '<tool_call>\\n{"name": ' -}}{{- call.name | tojson -}}{{- ', "arguments": ' -}}
{%- if call.arguments is string -%}{{- call.arguments -}}
{%- else -%}{{- call.arguments | tojson -}}{%- endif -%}
{{- '}\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
""".replace("@HEAD@", _quoted(_TOOLS_HEAD))
    .replace("@TAIL@", _quoted(_TOOLS_TAIL))
    .rstrip("\n")
)


def _system(item: Talk) -> str:
    if not item.system and not item.tools:
        return ""
    text = item.system
    if item.tools:
        lines = "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in item.tools)
        text += ("\n\n" if text else "") + _TOOLS_HEAD + lines + _TOOLS_TAIL
    return f"{START}system\n{text}{END}\n"


def segments(item: Talk) -> list[tuple[str, bool]]:
    """The document in pieces, each with whether the model is to learn to write it."""
    if item.messages[0][0] == "text":
        return [(item.messages[0][1] + item.messages[1][1] + END_OF_TEXT, True)]
    pieces: list[tuple[str, bool]] = [(_system(item), False)]
    for i, (role, content) in enumerate(item.messages):
        if role == "assistant":
            pieces += [(f"{START}assistant\n", False), (f"{content}{END}", True), ("\n", False)]
        elif role == "tool":
            pieces.append((_tool_result(item.messages, i), False))
        else:
            pieces.append((f"{START}{role}\n{content}{END}\n", False))
    return [p for p in pieces if p[0]]


def _tool_result(messages: list[Message], i: int) -> str:
    first = messages[i - 1][0] != "tool"
    last = i + 1 == len(messages) or messages[i + 1][0] != "tool"
    head, tail = f"{START}user" if first else "", f"{END}\n" if last else ""
    return f"{head}\n<tool_response>\n{messages[i][1]}\n</tool_response>{tail}"


def prompt_and_answer(item: Talk) -> tuple[str, str]:
    """What evaluation gives to the model and what a perfect model would write."""
    if item.messages[0][0] == "text":
        return item.messages[0][1], item.messages[1][1]
    pieces = segments(item)[:-1]
    return "".join(text for text, _ in pieces[:-1]), pieces[-1][0].removesuffix(END)
