"""Separates reasoning from the answer in a model's text, which is fed in pieces of any size.

Knows nothing about HTTP and engines.
"""

from quire.reasoning.parser import (
    NoReasoning,
    Opening,
    Preamble,
    Reasoning,
    ReasoningEvent,
    ReasoningParser,
)
from quire.reasoning.registry import (
    ReasoningFormat,
    detect_reasoning_format,
    reasoning_format,
    reasoning_parser_names,
)
from quire.reasoning.thoughts import Thoughts, special_tokens_of

__all__ = [
    "NoReasoning",
    "Opening",
    "Preamble",
    "Reasoning",
    "ReasoningEvent",
    "ReasoningFormat",
    "ReasoningParser",
    "Thoughts",
    "detect_reasoning_format",
    "reasoning_format",
    "reasoning_parser_names",
    "special_tokens_of",
]
