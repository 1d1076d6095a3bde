"""Detects the form in which a chat template wants messages.

Some templates print ``message.content``, others loop over its parts; some test whether it is none,
read only the first of several calls, refuse a text beside a thought, or find the tools in the
system message. Also reports syntax errors and the variables a template reads. Knows nothing about
messages.
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

# transformers' Jinja extension that marks the assistant's text.
_GENERATION_BLOCK = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")

# Filters that look into the parts of a content, and filters that pass parts on.
_PART_FILTERS = {"selectattr", "rejectattr", "map", "groupby"}
_COUNTING_FILTERS = {"length", "count"}
_KEEPING_FILTERS = {"default", "d", "list", "reverse", "sort", "unique"} | {
    *("select", "reject", "selectattr", "rejectattr"),
}


@dataclass(frozen=True, slots=True)
class ContentFormat:
    """The form of a message's content, and what may stand beside it."""

    name: str  # "string", or "openai": a list of parts
    tests_strings: bool  # the template accepts strings, perhaps besides parts
    tests_none: bool  # the template distinguishes none from empty content
    reads_one_call: bool = False  # the template reads only the first of a message's calls
    parts_thought: bool = False  # the template refuses a text beside ``thinking``
    tools_in_message: bool = False  # the template joins ``message.tools``, a text, to the message

    @property
    def is_list(self) -> bool:
        """Whether contents are lists of parts. Where a template accepts strings too they are
        strings: it may loop over the parts of one role, and read only the first of another."""
        return self.name == "openai" and not self.tests_strings

    @property
    def separator(self) -> str:
        """What stands between the parts of a content that becomes a string; a template that loops
        over parts puts nothing there."""
        return "" if self.name == "openai" else "\n"


@functools.lru_cache(maxsize=64)
def detect_content_format(template: str) -> ContentFormat:
    """The form is "openai" when the template loops over some message's content."""
    found = _detect(template)
    logger.info("Detected the chat template content format to be '%s'", found.name)
    return found


@functools.lru_cache(maxsize=64)
def template_fault(template: str) -> str | None:
    """Jinja's syntax error with its line, or None for a template that parses."""
    try:
        _environment().compile(_GENERATION_BLOCK.sub("", template))
    except TemplateSyntaxError as error:  # an unknown filter or test is one too
        return f"line {error.lineno}: {(error.message or '').rstrip('.')}"
    return None


@functools.lru_cache(maxsize=64)
def template_variables(template: str) -> frozenset[str]:
    """The variables that a template reads; empty if it does not parse."""
    if template_fault(template) is not None:
        return frozenset()
    tree = _environment().parse(_GENERATION_BLOCK.sub("", template))
    return frozenset(meta.find_undeclared_variables(tree))


@functools.lru_cache(maxsize=64)
def shows_tools(template: str) -> bool:
    """Whether the tools of a request reach the model."""
    return "tools" in template_variables(template) or _detect(template).tools_in_message


def _environment() -> ImmutableSandboxedEnvironment:
    """A Jinja environment that parses what transformers' does."""
    return ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )


def _detect(template: str) -> ContentFormat:
    try:
        tree = _environment().parse(_GENERATION_BLOCK.sub("", template))
    except TemplateSyntaxError:
        # Rendering reports the error.
        return ContentFormat("string", tests_strings=True, tests_none=False)
    names = _names_of_content(tree)
    tests = {test.name for test in tree.find_all(nodes.Test) if _is_content(test.node, names)}
    return ContentFormat(
        "openai" if _walks_over_content(tree, names) else "string",
        tests_strings="string" in tests,
        tests_none="none" in tests,
        reads_one_call=_reads_one_call(tree),
        parts_thought=_parts_thought(tree),
        tools_in_message="tools" not in meta.find_undeclared_variables(tree)
        and any(
            "tools" in (_key(joined.left), _key(joined.right))
            for joined in tree.find_all(nodes.Add)
        ),
    )


def _reads_one_call(tree: nodes.Template) -> bool:
    """Whether the first of a message's calls is read, and never all of them."""
    firsts = {id(node.node) for node in tree.find_all(nodes.Getitem) if _key(node) == 0}
    counted: set[int] = set()
    for one in tree.find_all(nodes.Filter):
        if one.name == "first":
            firsts.add(id(one.node))
        elif one.name in _COUNTING_FILTERS:
            counted.add(id(one.node))
    read = {id(node) for place in _reading_places(tree) for node in _calls_in(place)}
    return bool(read & firsts) and read <= firsts | counted


def _reading_places(tree: nodes.Template) -> Iterator[nodes.Node]:
    """Where values are used, and not only tested."""
    yield from (loop.iter for loop in tree.find_all(nodes.For))
    yield from (assignment.node for assignment in tree.find_all(nodes.Assign))
    yield from tree.find_all(nodes.Output)
    for call in tree.find_all(nodes.Call):
        yield from (*call.args, *call.kwargs)


def _calls_in(place: nodes.Node) -> Iterator[nodes.Node]:
    kinds = (nodes.Getattr, nodes.Getitem, nodes.Call)
    own = [place] if isinstance(place, kinds) else []
    yield from (node for node in (*own, *place.find_all(kinds)) if _key(node) == "tool_calls")


def _parts_thought(tree: nodes.Template) -> bool:
    """Whether an exception is raised where both ``content`` and ``thinking`` are set."""
    return any(
        {_key(both.left), _key(both.right)} == {"content", "thinking"}
        for branch in tree.find_all(nodes.If)
        if any(map(_raises, branch.body))
        for both in (branch.test, *branch.test.find_all(nodes.And))
        if isinstance(both, nodes.And)
    )


def _raises(node: nodes.Node) -> bool:
    return any(
        isinstance(call.node, nodes.Name) and call.node.name == "raise_exception"
        for call in node.find_all(nodes.Call)
    )


def _walks_over_content(tree: nodes.Template, names: set[str]) -> bool:
    """Whether a loop, or a filter that looks into parts, iterates over some content."""
    loops = any(_is_content(loop.iter, names) for loop in tree.find_all(nodes.For))
    return loops or any(
        one.name in _PART_FILTERS and _is_content(one.node, names)
        for one in tree.find_all(nodes.Filter)
    )


def _names_of_content(tree: nodes.Template) -> set[str]:
    """Variables that are set to a content, and macro parameters that hold one."""
    macros = {macro.name: macro for macro in tree.find_all(nodes.Macro)}
    names = {
        assignment.target.name
        for assignment in tree.find_all(nodes.Assign)
        if isinstance(assignment.target, nodes.Name) and _is_content(assignment.node, set())
    }
    if any(argument.name == "content" for macro in macros.values() for argument in macro.args):
        names.add("content")
    # Macros that print any value get contents too, but do not read `.text` of parts.
    walked = {
        loop.iter.name
        for loop in tree.find_all(nodes.For)
        if isinstance(loop.iter, nodes.Name) and _reads_text(loop)
    }
    filled = _filled_parameters(tree, macros)
    return names | {name for name, value in filled if name in walked and _is_content(value, names)}


def _filled_parameters(
    tree: nodes.Template, macros: dict[str, nodes.Macro]
) -> Iterator[tuple[str, nodes.Node]]:
    """The parameters of macros, with what each call puts there."""
    for call in tree.find_all(nodes.Call):
        macro = macros.get(call.node.name) if isinstance(call.node, nodes.Name) else None
        if macro is not None:
            yield from zip((argument.name for argument in macro.args), call.args, strict=False)
            yield from ((argument.key, argument.value) for argument in call.kwargs)


def _reads_text(loop: nodes.For) -> bool:
    """Whether ``.text`` or ``['text']`` of something is read in the loop."""
    return any(
        _key(node) == "text" for node in loop.find_all((nodes.Getattr, nodes.Getitem, nodes.Call))
    )


def _is_content(node: nodes.Node | None, names: set[str]) -> bool:
    """``message.content`` in any spelling, a variable that holds it, or one of these behind a
    filter that passes parts on."""
    if isinstance(node, nodes.Name):
        return node.name in names
    if isinstance(node, nodes.Filter):
        return node.name in _KEEPING_FILTERS and _is_content(node.node, names)
    return _key(node) == "content"


def _key(node: nodes.Node | None) -> object:
    """What is read: the key of ``a.key``, ``a['key']`` and ``a.get('key')``."""
    if isinstance(node, nodes.Getattr):
        return node.attr
    if isinstance(node, nodes.Getitem):
        return node.arg.value if isinstance(node.arg, nodes.Const) else None
    if isinstance(node, nodes.Call) and _key(node.node) == "get" and node.args:
        return node.args[0].value if isinstance(node.args[0], nodes.Const) else None
    return None
