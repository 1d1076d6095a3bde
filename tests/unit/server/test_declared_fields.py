"""Every field that a request model declares is read by the server: none is silently ignored.

A field is read as an attribute of a body (``body.seed``), or passed on by name from a table.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, create_model

from quire import server
from quire.server import sampling_fields
from quire.server.protocol import chat, common, completions, messages, responses, tokens
from quire.structured import GUIDED_CONSTRAINTS, GUIDED_OPTIONS

FOLDER = Path(server.__file__).parent
MODELS: dict[str, type[BaseModel]] = {
    model.__name__: model
    for module in (chat, common, completions, messages, responses, tokens)
    for model in vars(module).values()
    if isinstance(model, type) and issubclass(model, BaseModel) and model is not BaseModel
}
# Passed on by `getattr(body, name)`; the last two are refused by it.
BY_NAME = {
    *sampling_fields._SAME_NAME,
    *GUIDED_CONSTRAINTS,
    *GUIDED_OPTIONS,
    *("structured_outputs", "previous_response_id", "conversation"),
}
WITHOUT_EFFECT = {  # on purpose, as comments of `protocol/` say
    "CountTokensRequest": {
        *("cache_control", "inference_geo", "speed", "user_profile_id", "workspace_id"),
    },
    "MessagesRequest": {"diagnostics"},
    "ResponsesRequest": {"stream_options"},
}
BODIES = ("body", "chat")  # how variables without an annotation end that hold a body

Read = tuple[str, str]  # a variable's annotation, or its name if it has none; the attribute


def reads_of(node: ast.AST, annotations: Mapping[str, str]) -> Iterator[Read]:
    """All reads of attributes below ``node``."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        given = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        told = {one.arg: ast.unparse(one.annotation) for one in given if one.annotation}
        annotations = {**annotations, **told}
    if isinstance(node, ast.ClassDef):
        annotations = {**annotations, "self": node.name}
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        variable = ast.unparse(node.value)
        yield annotations.get(variable, variable), node.attr
    for child in ast.iter_child_nodes(node):
        yield from reads_of(child, annotations)


@pytest.fixture(scope="module")
def reads() -> set[Read]:
    trees = (ast.parse(file.read_text()) for file in FOLDER.rglob("*.py"))
    return set(chain.from_iterable(reads_of(tree, {}) for tree in trees))


def is_of(variable: str, model: type[BaseModel]) -> bool:
    """Whether a variable may hold a ``model``. Objects inside of a body have names of any kind."""
    kinds = [MODELS[word] for word in re.findall(r"\w+", variable) if word in MODELS]
    if kinds:
        return any(issubclass(model, kind) or issubclass(kind, model) for kind in kinds)
    return not issubclass(model, common.Body) or variable.endswith(BODIES)


def unread(model: type[BaseModel], reads: Iterable[Read], by_name: Collection[str]) -> list[str]:
    """The fields that ``model`` declares itself, and that nobody reads."""
    inherited = {name for base in model.__bases__ for name in getattr(base, "model_fields", ())}
    known = {name for variable, name in reads if is_of(variable, model)}
    known |= {*by_name, *WITHOUT_EFFECT.get(model.__name__, ()), *inherited}
    return [name for name in model.model_fields if name not in known]


@pytest.mark.parametrize("name", MODELS)
def test_every_declared_field_is_read(name: str, reads: set[Read]) -> None:
    assert unread(MODELS[name], reads, BY_NAME) == [], (
        f"{name} declares these fields, and nothing in src/quire/server reads them"
    )


@pytest.mark.parametrize("name", ["colour", "suffix", "input", "name"])
def test_a_field_that_nobody_reads_is_found(name: str, reads: set[Read]) -> None:
    """One of these the server never reads; the others it reads of other bodies and objects."""
    field: Any = {name: (str | None, None)}
    body = create_model("Coloured", __base__=chat.ChatCompletionRequest, **field)
    assert unread(body, reads, BY_NAME) == [name]
    assert unread(body, reads, {*BY_NAME, name}) == []


def test_what_is_read_of_a_body_is_known_by_its_annotation_or_its_name() -> None:
    source = """
    def of(body: ChatCompletionRequest, params: SamplingParams) -> int:
        body.written = params.n
        return lambda: body.seed + self._body.stop + other.top_k
    """
    found = set(reads_of(ast.parse(textwrap.dedent(source)), {}))
    names = {name for variable, name in found if is_of(variable, MODELS["GenerationBody"])}
    assert names == {"seed", "stop"}
