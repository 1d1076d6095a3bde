"""The served model's formats of tool calls and reasoning: set by flags, or detected from its chat
template.

Determined once, when the engine is ready. Knows nothing about requests.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from quire.chat_template import ChatOptions, ChatRenderer
from quire.reasoning import (
    ReasoningFormat,
    Thoughts,
    detect_reasoning_format,
    reasoning_format,
    special_tokens_of,
)
from quire.server.args import ServerArgs
from quire.tools import ToolFormat, detect_tool_format, load_tool_parsers, tool_format

logger = logging.getLogger(__name__)

AUTO = "auto"  # value of --reasoning-parser: detect the format from the chat template
# Unparsed answers of this format are unreadable, so it is always parsed.
_ALWAYS_SPLIT = "openai_gptoss"


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerFormats:
    """The formats of one model's answers."""

    tools: ToolFormat | None = None  # None: no tool can be called
    reasoning: ReasoningFormat | None = None  # None: reasoning is returned as content
    special_tokens: frozenset[str] = frozenset()
    thoughts: Thoughts | None = None  # None without ``reasoning`` or without a tokenizer

    @classmethod
    def of(cls, args: ServerArgs, chat: ChatRenderer | None) -> AnswerFormats:
        """The formats by flags and chat template; ``ValueError`` for an unknown parser name."""
        template = "" if chat is None else _template(chat)
        reasoning = _reasoning_format(args, template)
        if chat is None:
            return cls(tools=_tool_format(args, template), reasoning=reasoning)
        tokenizer = chat.tokenizer
        return cls(
            tools=_tool_format(args, template),
            reasoning=reasoning,
            special_tokens=special_tokens_of(tokenizer),
            thoughts=Thoughts.of(reasoning, tokenizer) if reasoning else None,
        )

    def are_special(self, marks: Iterable[str]) -> bool:
        """Whether any of the marks is a special token, which skip_special_tokens would remove."""
        return not self.special_tokens.isdisjoint(marks)


def check_formats(args: ServerArgs) -> None:
    """``ValueError`` for flags that name an unknown parser; called before anything is started."""
    _tool_format(args, "")
    if args.reasoning_parser not in (None, AUTO):
        reasoning_format(args.reasoning_parser)


def _tool_format(args: ServerArgs, template: str) -> ToolFormat | None:
    plugins = load_tool_parsers(args.tool_parser_plugin) if args.tool_parser_plugin else {}
    name = args.tool_call_parser
    if args.enable_auto_tool_choice is False:
        return None
    if name is not None:
        return tool_format(name, plugins)
    found = detect_tool_format(template)
    if found is not None:
        logger.info(
            "tool calls are parsed as by --tool-call-parser %s, detected from the template", found
        )
        return tool_format(found, plugins)
    if args.enable_auto_tool_choice and template:
        logger.warning(
            "--enable-auto-tool-choice has no effect: the chat template does not show how the "
            "model calls tools; name a --tool-call-parser"
        )
    return None


def _reasoning_format(args: ServerArgs, template: str) -> ReasoningFormat | None:
    name = args.reasoning_parser
    found = detect_reasoning_format(template)
    if name == AUTO or (name is None and found == _ALWAYS_SPLIT):
        name = found
    elif name is None and found is not None:
        logger.info("--reasoning-parser %s would separate reasoning from the answers", found)
    return None if name is None else reasoning_format(name)


def _template(chat: ChatRenderer) -> str:
    """The chat template for requests with tools (some models have a separate one), or ""."""
    try:
        return chat.template(ChatOptions(tools=[{}]))
    except ValueError:  # no chat template, which requests will get as an error
        return ""
