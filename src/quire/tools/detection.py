"""Which format of tool calls a chat template is made for."""

from __future__ import annotations

from quire.template_format import shows_tools

# The first format whose texts are all in the template wins; those with marks like others' come
# first.
_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("openai", ("<|channel|>", "<|constrain|>")),
    ("openai", ("<|channel|>", "to=functions.")),
    ("kimi_k2", ("<|tool_call_begin|>",)),
    ("deepseek_v3", ("<｜tool▁call▁begin｜>", "```json")),
    ("deepseek_v31", ("<｜tool▁call▁begin｜>",)),
    ("glm45", ("<arg_key>",)),
    ("seed_oss", ("<seed:tool_call>", "<function=")),
    ("qwen3_xml", ("<function=", "<parameter=")),
    ("longcat", ("<longcat_tool_call>",)),
    ("mistral", ("[TOOL_CALLS]",)),
    ("jamba", ("<tool_calls>",)),
    ("phi4_mini_json", ("<|/tool_call|>",)),
    ("granite", ("<|tool_call|>",)),
    ("granite-20b-fc", ("<function_call>",)),
    ("internlm", ("<|action_start|>", "<|plugin|>")),
    ("phi4_mini_json", ("functools[",)),
    ("phi4_mini_json", ("<|tool|>", "<|/tool|>")),
    ("olmo3", ("<function_calls>",)),
    ("hermes", ("<tool_call>", '"arguments"')),
    ("hermes", ("<tool_call>", '\\"arguments\\"')),
    ("llama4_pythonic", ("<|python_start|>", "func_name1(")),
    ("pythonic", ("[func_name1(",)),
    ("llama3_json", ("<|start_header_id|>", '"parameters"')),
    ("llama3_json", ("<|header_start|>", '"parameters"')),
)


def detect_tool_format(template: str) -> str | None:
    """The name of the format; None if the template shows no tools, or an unknown format."""
    if not shows_tools(template):
        return None
    return next((name for name, signs in _SIGNS if all(one in template for one in signs)), None)
