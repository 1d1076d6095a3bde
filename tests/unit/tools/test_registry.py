from __future__ import annotations

import json
from pathlib import Path

import pytest

from quire.args import BUNDLED_MODEL
from quire.tools import (
    Content,
    Tools,
    detect_tool_format,
    load_tool_parsers,
    tool_format,
    tool_parser_names,
)

SEED_NAMES = "granite-20b-fc granite hermes internlm jamba llama3_json mistral pythonic".split()


def test_names_of_other_servers_are_known() -> None:
    names = tool_parser_names()
    others = "deepseek_v3 glm45 kimi_k2 openai phi4_mini_json qwen3_coder qwen3_xml".split()
    assert set(SEED_NAMES + others) <= set(names)
    for name in names:
        assert tool_format(name).parser(Tools()).feed("Hello.") == [Content("Hello.")]


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no tool call parser 'hermess'; did you mean hermes"):
        tool_format("hermess")


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (
            '{% for tool in tools %}<tool_call>\n{"name": ..., "arguments": ...}{% endfor %}',
            "hermes",
        ),
        ('{{ tools }}{{ "<tool_call>{\\"name\\": ..., \\"arguments\\": {}}" }}', "hermes"),
        ('Without any tools.<tool_call>{"name": ..., "arguments": ...}', None),
        ("{{ '<|tool|>' + messages[0]['tools'] + '<|/tool|>' }}", "phi4_mini_json"),
        (
            "{% for tool in tools %}<tool_call>\n<function=f>\n<parameter=p>{% endfor %}",
            "qwen3_xml",
        ),
        ("{% if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS]", "mistral"),
        (
            '<|start_header_id|>{% if tools %}{"name": ..., "parameters": ...}{% endif %}',
            "llama3_json",
        ),
        ("{% if tools %}<|start_of_role|><|tool_call|>{% endif %}", "granite"),
        (
            "{% if tools %}<|tool|>{{ tools }}<|/tool|><|tool_call|><|/tool_call|>{% endif %}",
            "phi4_mini_json",
        ),
        ("{% if tools %}<tool_call>name<arg_key>k</arg_key>{% endif %}", "glm45"),
        ("{% if tools %}<|tool_calls_section_begin|><|tool_call_begin|>{% endif %}", "kimi_k2"),
        ("{% if tools %}<｜tool▁call▁begin｜>{{ '```json' }}{% endif %}", "deepseek_v3"),
        ("{% if tools %}<｜tool▁call▁begin｜>{% endif %}", "deepseek_v31"),
        (
            "{% if tools %}<|start|>assistant<|channel|>commentary to=functions.{% endif %}",
            "openai",
        ),
        ("{% if tools %}{% endif %}{{ messages }}", None),
        ("<tool_call>", None),
        ("", None),
    ],
)
def test_a_template_tells_its_format(template: str, name: str | None) -> None:
    assert detect_tool_format(template) == name


def test_the_bundled_model_writes_calls_as_hermes() -> None:
    config = (BUNDLED_MODEL / "tokenizer_config.json").read_text(encoding="utf-8")
    assert detect_tool_format(json.loads(config)["chat_template"]) == "hermes"


PLUGIN = """
from quire.tools import CallBegin, CallEnd, Content

class Loud:
    def __init__(self, tools):
        self.tools = tools
    def feed(self, text):
        return [Content(text.upper())]
    def finish(self):
        return [CallBegin(0, "end"), CallEnd(0)]

TOOL_PARSERS = {"loud": Loud, "hermes": Loud}
"""


def test_a_plugin_file_brings_parsers_and_replaces_ours(tmp_path: Path) -> None:
    file = tmp_path / "loud.py"
    file.write_text(PLUGIN, encoding="utf-8")
    plugins = load_tool_parsers(str(file))
    for name in ("loud", "hermes"):
        assert tool_format(name, plugins).parser(Tools()).feed("a") == [Content("A")]
    assert tool_format("jamba", plugins) is tool_format("jamba")
    assert "loud" in tool_parser_names(plugins)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("x = 1", "has no TOOL_PARSERS"), ("TOOL_PARSERS = {'a': 3}", "must be a function")],
)
def test_a_plugin_file_without_parsers_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "empty.py"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=reason):
        load_tool_parsers(str(file))
    with pytest.raises(ValueError, match="there is no file"):
        load_tool_parsers(str(tmp_path / "gone.py"))
