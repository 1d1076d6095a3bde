"""Parsers of tool calls in a model's text, for the formats of many models.

Text goes in, in pieces of any size; events come out. Knows nothing about HTTP and engines.
"""

from quire.tools.definitions import Tools
from quire.tools.detection import detect_tool_format
from quire.tools.events import CallArguments, CallBegin, CallEnd, Content, Event
from quire.tools.parser import ContentOnly, ToolParser
from quire.tools.plugin import load_tool_parsers
from quire.tools.registry import CallBegins, CallText, ToolFormat, tool_format, tool_parser_names

__all__ = [
    "CallArguments",
    "CallBegin",
    "CallBegins",
    "CallEnd",
    "CallText",
    "Content",
    "ContentOnly",
    "Event",
    "ToolFormat",
    "ToolParser",
    "Tools",
    "detect_tool_format",
    "load_tool_parsers",
    "tool_format",
    "tool_parser_names",
]
