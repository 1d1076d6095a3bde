"""Turns an argument that was written as plain text into JSON, by the schema of its parameter."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from quire.structured_outputs import schema_walk
from quire.tools.json_text import as_json, dumped, json_string, loaded

Schema = Mapping[str, Any]
Kinds = frozenset[str]  # of `ALL`

ALL: Kinds = frozenset({"string", "null", "boolean", "integer", "number", "array", "object"})
# Other names of types that templates and users write, Python's included.
_OF_TYPE = {
    **dict.fromkeys(("number", "float"), ("number", "integer")),
    **dict.fromkeys(("str", "text"), ("string",)),
    **dict.fromkeys(("list", "tuple"), ("array",)),
    **{"dict": ("object",), "int": ("integer",), "bool": ("boolean",)},
}
_OF_PYTHON = {
    **{str: "string", type(None): "null", bool: "boolean", int: "integer"},
    **{float: "number", list: "array", dict: "object"},
}
# The kind of values that a keyword is about, for schemas without a type.
_HINTS = {
    **dict.fromkeys(("minLength", "maxLength", "pattern", "format"), "string"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), "number"),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems"), "array"),
    **dict.fromkeys(("properties", "additionalProperties", "required"), "object"),
}
_MAX_DEPTH = 16  # of combinations and references; deeper ones are ignored
_OF_JSON = {"true": True, "false": False, "null": None}
_PYTHON_WORDS = {"true": "true", "false": "false", "none": "null"}
_NO_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


def kinds_of(schema: Schema, name: str) -> Kinds:
    """The kinds of values that a schema of objects admits for a property."""
    return _Reader(schema, name).property_kinds(schema, 0)


class _Reader:
    """Looks at each definition once, however many references lead there."""

    def __init__(self, root: Schema, name: str) -> None:
        self._root = root
        self._name = name
        self._known: dict[str, Kinds] = {}
        self._known_property: dict[str, Kinds] = {}

    def property_kinds(self, schema: Any, depth: int) -> Kinds:
        """The kinds of the property in a schema of objects; branches that do not mention it do not
        count."""
        if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
            return ALL
        found = self.kinds(_property(schema, self._name), depth)
        if isinstance(reference := schema.get("$ref"), str):
            if reference not in self._known_property:
                self._known_property[reference] = ALL  # what leads back to itself says no more
                place = _place(reference, self._root)
                self._known_property[reference] = self.property_kinds(place, depth + 1)
            found &= self._known_property[reference]
        for one in _list(schema.get("allOf")):
            found &= self.property_kinds(one, depth + 1)
        for word in ("anyOf", "oneOf"):
            branches = [self.property_kinds(one, depth + 1) for one in _list(schema.get(word))]
            known = [kinds for kinds in branches if kinds != ALL]
            found &= frozenset().union(*known) if known else ALL
        return found

    def kinds(self, schema: Any, depth: int) -> Kinds:
        if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
            return ALL
        found = _kinds_alone(schema)
        if isinstance(reference := schema.get("$ref"), str):
            found &= self._referred(reference, depth)
        for one in _list(schema.get("allOf")):
            found &= self.kinds(one, depth + 1)
        for word in ("anyOf", "oneOf"):
            if branches := _list(schema.get(word)):
                found &= frozenset().union(*(self.kinds(one, depth + 1) for one in branches))
        if found == ALL:
            return _hinted(schema) or ALL
        return found | {"null"} if schema.get("nullable") is True else found

    def _referred(self, reference: str, depth: int) -> Kinds:
        if reference not in self._known:
            self._known[reference] = frozenset()  # what leads back to itself admits no more by it
            self._known[reference] = self.kinds(_place(reference, self._root), depth + 1)
        return self._known[reference]


def _kinds_alone(schema: Schema) -> Kinds:
    """The kinds by ``type``, ``enum`` and ``const`` alone."""
    found = ALL
    types = schema.get("type")
    if types is not None:
        names = [types] if isinstance(types, str) else _list(types)
        found &= frozenset(kind for one in names for kind in _OF_TYPE.get(str(one), (str(one),)))
    if values := _list(schema.get("enum")):
        found &= frozenset(map(_kind, values))
    return found & {_kind(schema["const"])} if "const" in schema else found


def _hinted(schema: Schema) -> Kinds:
    hints = {_HINTS[word] for word in schema if word in _HINTS}
    default = schema.get("default")
    return frozenset(hints if default is None else hints | {_kind(default)})


def json_value(text: str, kinds: Kinds) -> str:
    """What a model wrote for a parameter that admits values of these kinds, as JSON.

    If strings are among them, the text is one unless it is JSON of another of these kinds. Else
    text that is no JSON may be a Python literal of one of the kinds, if any is known: ``1,234`` for
    a number is not meant as a tuple.
    """
    bare = text.strip()
    exact = as_json(bare)
    if "string" in kinds:
        is_other = exact is not None and _kind(loaded(bare)) in kinds - {"string"}
        return exact if exact is not None and is_other else json_string(text)
    value = exact or _PYTHON_WORDS.get(bare.lower())
    if value is None and (literal := python_literal(bare)) is not None:
        value = literal if not kinds or _kind(loaded(literal)) in kinds else None
    return value or json_string(bare)


def python_literal(text: str) -> str | None:
    """A Python literal as JSON; None if it is none, or JSON cannot represent it. The words of JSON
    are literals too: models mix them in."""
    try:
        with warnings.catch_warnings():  # escapes in its strings may be odd
            warnings.simplefilter("ignore")
            tree = ast.parse(text.strip(), mode="eval")
            return dumped(ast.literal_eval(_JsonWords().visit(tree)))
    except _NO_LITERAL:
        return None


class _JsonWords(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(_OF_JSON[node.id]) if node.id in _OF_JSON else node


def _kind(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return "integer"
    return _OF_PYTHON.get(type(value), "object")


def _property(schema: Schema, name: str) -> Any:
    """What the schema itself says of a property; None if patternProperties may apply to it."""
    properties = schema.get("properties")
    if isinstance(properties, Mapping) and name in properties:
        return properties[name]
    return None if schema.get("patternProperties") else schema.get("additionalProperties")


def _place(reference: str, root: Schema) -> Any:
    """What ``#/$defs/name`` stands for; None if it leads nowhere."""
    place: Any = root
    for part in schema_walk.parts_of(reference)[1:]:
        if not isinstance(place, Mapping) or part not in place:
            return None
        place = place[part]
    return place if reference.startswith("#") else None


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
