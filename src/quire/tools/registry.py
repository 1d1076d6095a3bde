"""The formats of tool calls by name: ours and those of plug-ins.

Names are the ones that other servers use. A format knows which marks it has: those that are special
tokens of a tokenizer must not be dropped from the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from quire.near_names import did_you_mean
from quire.tools.definitions import Tools
from quire.tools.formats.harmony import MARKS as HARMONY_MARKS
from quire.tools.formats.harmony import harmony, harmony_or
from quire.tools.formats.marked import bare, marked
from quire.tools.formats.named import NamedCalls, mistral, named_calls
from quire.tools.formats.pythonic import pythonic
from quire.tools.formats.tagged import Tags, tagged
from quire.tools.parser import Grammar, ToolParser, grammar_parser

ParserFactory = Callable[[Tools], ToolParser]


@dataclass(frozen=True, kw_only=True, slots=True)
class CallText:
    """How one call is written, if the arguments are JSON and the name stands before them."""

    begin: str  # up to the arguments; NAME stands for the name
    end: str
    separator: str = "\n"  # between two calls


@dataclass(frozen=True, kw_only=True, slots=True)
class CallBegins:
    """Marks that begin a call even if the model has not ended its thought."""

    marks: tuple[str, ...] = ()
    is_sure: bool = False  # wherever they stand; else at the beginning of a line


def _only(forced: Grammar) -> Grammar:
    return forced


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolFormat:
    """One way to write calls."""

    name: str
    parser: ParserFactory
    marks: tuple[str, ...] = ()  # of which some may be special tokens
    call_text: CallText | None = None
    id_length: int | None = None  # of the ids of calls, where a template is strict about it
    in_thought: CallBegins = CallBegins()  # for models that forget the end of a thought
    # Makes a grammar that also reads the model's own calls, which may precede those that it reads.
    own_calls_or: Callable[[Grammar], Grammar] = _only


def _format(
    name: str,
    grammar: Grammar,
    *marks: str,
    call_text: CallText | None = None,
    id_length: int | None = None,
    in_thought: CallBegins = CallBegins(),
    own_calls_or: Callable[[Grammar], Grammar] = _only,
) -> ToolFormat:
    return ToolFormat(
        name=name,
        parser=lambda tools: grammar_parser(grammar, tools),
        marks=marks,
        call_text=call_text,
        id_length=id_length,
        in_thought=in_thought,
        own_calls_or=own_calls_or,
    )


def _tags(begin: str, end: str) -> Tags:
    return Tags(
        begin=begin,
        name="<function=",
        after_name=">",
        key="<parameter=",
        after_key=">",
        value="",
        after_value="</parameter>",
        after_call="</function>",
        end=end,
        has_lines=True,
    )


_GLM_TAGS = Tags(
    begin="<tool_call>",
    name="",
    after_name="",
    key="<arg_key>",
    after_key="</arg_key>",
    value="<arg_value>",
    after_value="</arg_value>",
    after_call="</tool_call>",
    end="</tool_call>",
    has_lines=False,
)
_KIMI = NamedCalls(
    section_begins=("<|tool_calls_section_begin|>", "<|tool_call_section_begin|>"),
    section_ends=("<|tool_calls_section_end|>", "<|tool_call_section_end|>"),
    call="<|tool_call_begin|>",
    separator="<|tool_call_argument_begin|>",
    call_end="<|tool_call_end|>",
    has_ids=True,
)
_DEEPSEEK_BEGINS, _DEEPSEEK_ENDS = ("<｜tool▁calls▁begin｜>",), ("<｜tool▁calls▁end｜>",)
_DEEPSEEK_CALL, _DEEPSEEK_SEP = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>"
_DEEPSEEK_END = "<｜tool▁call▁end｜>"
_DEEPSEEK_V3 = NamedCalls(
    section_begins=_DEEPSEEK_BEGINS,
    section_ends=_DEEPSEEK_ENDS,
    call=_DEEPSEEK_CALL,
    before_name=(f"function{_DEEPSEEK_SEP}",),
    separator="\n",
    call_end=_DEEPSEEK_END,
)
_DEEPSEEK_V31 = NamedCalls(
    section_begins=_DEEPSEEK_BEGINS,
    section_ends=_DEEPSEEK_ENDS,
    call=_DEEPSEEK_CALL,
    separator=_DEEPSEEK_SEP,
    call_end=_DEEPSEEK_END,
)
_HERMES_TEXT = CallText(
    begin='<tool_call>\n{"name": "NAME", "arguments": ',
    end="}\n</tool_call>",
)


def _marks_of(form: NamedCalls) -> tuple[str, ...]:
    sections = (*form.section_begins, *form.section_ends)
    return (*sections, form.call, form.separator, form.call_end, *form.before_name)


def _named(name: str, form: NamedCalls, *more_marks: str) -> ToolFormat:
    begins = CallBegins(marks=(*form.section_begins, form.call), is_sure=True)
    return _format(name, named_calls(form), *_marks_of(form), *more_marks, in_thought=begins)


def _xml(name: str, outer: str) -> ToolFormat:
    begin, end = f"<{outer}>", f"</{outer}>"
    grammar = tagged(_tags(begin, end))
    return _format(name, grammar, begin, end, in_thought=CallBegins(marks=(begin,)))


def _hermes(name: str, outer: str, call_text: CallText | None = None) -> ToolFormat:
    begin, end = f"<{outer}>", f"</{outer}>"
    begins = CallBegins(marks=(begin,))
    grammar = marked((begin,), (end,))
    return _format(name, grammar, begin, end, call_text=call_text, in_thought=begins)


_FORMATS = (
    _hermes("hermes", "tool_call", _HERMES_TEXT),
    _hermes("longcat", "longcat_tool_call"),
    _format("mistral", mistral, "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", id_length=9),
    _format("llama3_json", bare(("<|python_tag|>",)), "<|python_tag|>"),
    _format(
        "granite",
        marked(("<|tool_call|>", "<tool_call>"), may_lack_mark=True),
        *("<|tool_call|>", "<tool_call>"),
    ),
    _format("granite-20b-fc", marked(("<function_call>",)), "<function_call>"),
    _format(
        "internlm",
        marked(("<|action_start|><|plugin|>", "<|action_start|> <|plugin|>"), ("<|action_end|>",)),
        *("<|action_start|>", "<|plugin|>", "<|action_end|>"),
    ),
    _format(
        "jamba", marked(("<tool_calls>",), ("</tool_calls>",)), "<tool_calls>", "</tool_calls>"
    ),
    _format(
        "phi4_mini_json",
        marked(("functools", "<|tool_call|>"), ("<|/tool_call|>",), may_lack_mark=True),
        *("functools", "<|tool_call|>", "<|/tool_call|>"),
    ),
    _format("pythonic", pythonic()),
    _format(
        "llama4_pythonic",
        pythonic(("<|python_start|>",), ("<|python_end|>",)),
        *("<|python_start|>", "<|python_end|>"),
    ),
    _format(
        "olmo3",
        pythonic(("<function_calls>",), ("</function_calls>",)),
        *("<function_calls>", "</function_calls>"),
    ),
    _xml("qwen3_xml", "tool_call"),
    _xml("seed_oss", "seed:tool_call"),
    _format(
        "glm45",
        tagged(_GLM_TAGS),
        *("<tool_call>", "</tool_call>"),
        in_thought=CallBegins(marks=("<tool_call>",)),
    ),
    _named("deepseek_v3", _DEEPSEEK_V3, _DEEPSEEK_SEP),
    _named("deepseek_v31", _DEEPSEEK_V31),
    _named("kimi_k2", _KIMI),
    _format("openai", harmony, *HARMONY_MARKS, own_calls_or=harmony_or),
)
TOOL_FORMATS: Mapping[str, ToolFormat] = {one.name: one for one in _FORMATS}
ALIASES: Mapping[str, str] = {
    "qwen3": "hermes",
    "qwen3_json": "hermes",
    "granite4": "hermes",
    "qwen3_coder": "qwen3_xml",
    "llama4_json": "llama3_json",
    "phi4_mini": "phi4_mini_json",
    "glm47": "glm45",
    "gpt-oss": "openai",
    "gpt_oss": "openai",
    "harmony": "openai",
}


def tool_parser_names(plugins: Mapping[str, ToolFormat] | None = None) -> list[str]:
    return sorted({*TOOL_FORMATS, *ALIASES, *(plugins or {})})


def tool_format(name: str, plugins: Mapping[str, ToolFormat] | None = None) -> ToolFormat:
    """The format of this name; a plug-in's comes first."""
    found = (plugins or {}).get(name) or TOOL_FORMATS.get(ALIASES.get(name, name))
    if found is None:
        names = tool_parser_names(plugins)
        raise ValueError(
            f"there is no tool call parser {name!r}{did_you_mean(name, names)}; the parsers are "
            f"{', '.join(names)}; --tool-parser-plugin brings others"
        )
    return found
