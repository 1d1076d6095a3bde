"""Reads from a chat template in which form it wants the content of messages.

Some templates print ``message.content``, others walk over its parts. Also says what does not
parse, and which variables are read. Knows nothing about messages.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

from jinja2 import TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

logger = logging.getLogger(__name__)

# transformers marks the assistant's own text with a block of its own making.
_GENERATION_BLOCK = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class ContentFormat:
    """The form of a message's content."""

    name: str  # "string", or "openai": a list of parts
    tests_strings: bool  # the template takes a string too where it takes parts

    @property
    def is_wrapped(self) -> bool:
        """Whether a string too must become a list of parts."""
        return self.name == "openai" and not self.tests_strings


@functools.lru_cache(maxsize=64)
def detect_content_format(template: str) -> ContentFormat:
    """The form is "openai" when the template loops over some message's content."""
    found = _detect(template)
    logger.info("Detected the chat template content format to be '%s'", found.name)
    return found


@functools.lru_cache(maxsize=64)
def template_fault(template: str) -> str | None:
    """What Jinja says of a template that can never be rendered, with the line."""
    try:
        _environment().compile(_GENERATION_BLOCK.sub("", template))
    except TemplateSyntaxError as error:  # an unknown filter or test is one too
        return f"line {error.lineno}: {(error.message or '').rstrip('.')}"
    return None


def template_variables(template: str) -> frozenset[str]:
    """What a template that parses reads of what it is given."""
    if template_fault(template) is not None:
        return frozenset()
    tree = _environment().parse(_GENERATION_BLOCK.sub("", template))
    return frozenset(meta.find_undeclared_variables(tree))


def _environment() -> ImmutableSandboxedEnvironment:
    """Reads what that of transformers reads."""
    return ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )


def _detect(template: str) -> ContentFormat:
    try:
        tree = _environment().parse(_GENERATION_BLOCK.sub("", template))
    except TemplateSyntaxError:
        return ContentFormat("string", tests_strings=True)  # rendering says what is wrong
    names = set(_names_of_content(tree))
    loops = any(_is_content(loop.iter, names) for loop in tree.find_all(nodes.For))
    tests = tree.find_all(nodes.Test)
    return ContentFormat(
        "openai" if loops else "string",
        tests_strings=any(
            test.name == "string" and _is_content(test.node, names) for test in tests
        ),
    )


def _names_of_content(tree: nodes.Template) -> Iterator[str]:
    """Variables that are set to a content, and macro parameters that are named so."""
    for assignment in tree.find_all(nodes.Assign):
        if isinstance(assignment.target, nodes.Name) and _is_content(assignment.node, set()):
            yield assignment.target.name
    for macro in tree.find_all(nodes.Macro):
        yield from (argument.name for argument in macro.args if argument.name == "content")


def _is_content(node: nodes.Node, names: set[str]) -> bool:
    """``message.content``, ``message['content']``, or a variable that holds it."""
    if isinstance(node, nodes.Name):
        return node.name in names
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    return False
