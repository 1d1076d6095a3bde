"""Checks a constraint before anything is compiled: size, depth, and every keyword of a schema.

Quick and bounded, so that it may run where requests come in. One ``ValueError`` names the keyword
and its place. Knows neither tokenizers nor backends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from quire.near_names import did_you_mean
from quire.shown import shown
from quire.structured import GrammarSpec
from quire.structured_outputs import keywords, schema_walk
from quire.structured_outputs.idle import without_idle
from quire.structured_outputs.lark import check_words, inline_schemas

MAX_SOURCE_BYTES = 1 << 18
MAX_DEPTH = 64
MAX_OPTIONAL = 1000  # properties of one object

# A limit beyond what can be counted is pulled in to that.
_LEAST_COUNTS = frozenset({"minLength", "minItems", "minProperties"})
_REMEDY = "write the schema without it"


def check(spec: GrammarSpec) -> None:
    """Raise ``ValueError`` for a constraint that could not be followed exactly."""
    check_size(spec)
    if spec.kind in ("json", "structural_tag"):
        value = _parsed(spec)
        _check_depth(spec, _depth_of_value(value))
        (check_schema if spec.kind == "json" else check_tag)(value)
    elif spec.kind != "choice":
        _check_depth(spec, _depth_of_text(spec.source))
        if spec.kind == "lark":
            _check_lark(spec)


def check_size(spec: GrammarSpec) -> None:
    """Raise ``ValueError`` for a constraint that is too long to be looked at."""
    size = len(spec.source.encode())
    if size > MAX_SOURCE_BYTES:
        raise ValueError(
            f"the {spec.kind} grammar has {size} bytes, the limit is {MAX_SOURCE_BYTES}; make it "
            "smaller."
        )


def _check_lark(spec: GrammarSpec) -> None:
    """Check the words of the grammar's rules, and the schemas in it."""
    check_words(spec.source)
    for one in inline_schemas(spec.source):
        _check_depth(spec, _depth_of_value(one.schema))
        check_schema(one.schema, one.path)


def check_tag(tag: Mapping[str, Any]) -> None:
    """Check a structural tag, and the schemas in it."""
    if "structures" in tag:
        _check_older_tag(tag)
    for path, schema in schemas_in_tag(tag):
        check_schema(schema, path)


def _check_older_tag(tag: Mapping[str, Any]) -> None:
    """Check a tag of the older form: the compiler's errors would be about the newer one."""
    structures, triggers = tag["structures"], tag.get("triggers")
    if not isinstance(structures, list) or not all(
        isinstance(one, Mapping) and all(isinstance(one.get(key), str) for key in ("begin", "end"))
        for one in structures
    ):
        raise ValueError(
            "structural_tag.structures must be a list of objects with the strings begin and end, "
            f"got {shown(structures)}."
        )
    if not isinstance(triggers, list) or not all(isinstance(one, str) for one in triggers):
        raise ValueError(
            f"structural_tag.triggers must be a list of strings, got {shown(triggers)}; name the "
            "beginnings of tags."
        )


def schemas_in_tag(value: Any, path: str = "structural_tag") -> Iterator[tuple[str, Any]]:
    """Every JSON schema inside a structural tag, with its place."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            if name == "json_schema" or (name == "schema" and "begin" in value):
                yield f"{path}.{name}", one
            else:
                yield from schemas_in_tag(one, f"{path}.{name}")
    elif isinstance(value, list):
        for i, one in enumerate(value):
            yield from schemas_in_tag(one, f"{path}[{i}]")


def check_schema(schema: Any, path: str = "#") -> None:
    """Raise ``ValueError`` unless each keyword that has an effect is honoured and has a valid
    value."""
    schema = without_idle(schema)
    _check_schema(schema, path)
    _check_circles(schema, path)


def _check_circles(root: Any, path: str) -> None:
    """``ValueError`` for a reference that leads back to itself, for the same value: it says
    nothing, and validators never come to its end."""
    schemas = {id(one): one for one in schema_walk.all_schemas(root)}
    parts = {key: {id(part) for part in _parts_of(one, root)} for key, one in schemas.items()}
    try:
        TopologicalSorter(parts).prepare()
    except CycleError as error:
        around = [schemas[key] for key in error.args[1] if key in schemas]
        reference = next(one["$ref"] for one in around if "$ref" in one)
        raise ValueError(
            f"JSON schema: the reference {reference!r} within {path} leads only back to itself, so "
            "nothing says what its value is; let it lead to a schema that does."
        ) from None


def _parts_of(schema: Mapping[str, Any], root: Any) -> Iterator[Any]:
    """The schemas that a value of this one must follow, too."""
    for word in ("allOf", "anyOf", "oneOf"):
        parts = schema.get(word, ())
        if word == "allOf" or len(parts) == 1:
            yield from parts
    if "$ref" in schema:
        yield schema_walk.referred(schema["$ref"], root)


def _check_schema(schema: Any, path: str) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise ValueError(
            f"JSON schema: {path} must be an object or a boolean, got {shown(schema)}."
        )
    for name, value in schema.items():
        if name == "format":
            _check_format(schema, f"{path}/{name}")
        elif name != "propertyNames" or not _may_name(schema, path):
            _check_keyword(name, value, f"{path}/{name}")
    _check_width(schema, path)
    combines = any(word in schema for word in ("allOf", "anyOf", "oneOf", "$ref"))
    if combines and schema.get("unevaluatedProperties", True) is not True:
        raise ValueError(
            f"JSON schema: the keyword 'unevaluatedProperties' at {path}/unevaluatedProperties "
            "cannot be honoured beside allOf, anyOf, oneOf or $ref; name all properties in one "
            "place, with additionalProperties false."
        )


def _may_name(schema: Mapping[str, Any], path: str) -> bool:
    """Whether its ``propertyNames`` can be expressed by other keywords; references are left to
    `narrow.py`."""
    names = schema["propertyNames"]
    if isinstance(names, Mapping) and keywords.is_reference(names):
        _check_value("$ref", names["$ref"], f"{path}/propertyNames/$ref")
        return True
    return keywords.names_pattern(schema, True) is not None


def _check_width(schema: Mapping[str, Any], path: str) -> None:
    """Limit optional properties: each that may come next needs states of its own at every token."""
    required = schema.get("required", ())
    num_optional = sum(name not in required for name in schema.get("properties", ()))
    if num_optional > MAX_OPTIONAL:
        raise ValueError(
            f"JSON schema: {path}/properties has {num_optional} properties that are not required, "
            f"the limit is {MAX_OPTIONAL}; require some, or describe them by patternProperties."
        )


def _check_keyword(name: str, value: Any, path: str) -> None:
    if name in keywords.REFUSED:
        raise ValueError(
            f"JSON schema: the keyword {name!r} at {path} cannot be honoured; "
            f"{keywords.REFUSED[name]}."
        )
    if name in keywords.ANNOTATIONS or name.startswith("x-"):
        return
    if name not in keywords.HONOURED:
        hint = did_you_mean(name, sorted(keywords.HONOURED))
        raise ValueError(f"JSON schema: the keyword {name!r} at {path} is unknown{hint}.")
    if name in schema_walk.SCHEMA and isinstance(value, list):  # the older form of prefixItems
        _check_list(value, path)
    elif name in schema_walk.SCHEMA:
        _check_schema(value, path)
    elif name in schema_walk.SCHEMAS:
        _check_list(value, path)
    elif name in schema_walk.SCHEMAS_BY_NAME:
        if not isinstance(value, Mapping):
            raise ValueError(f"JSON schema: {path} must be an object, got {shown(value)}.")
        for key, one in value.items():
            _check_schema(one, f"{path}/{key}")
    else:
        _check_value(name, value, path)


def _check_list(value: Any, path: str) -> None:
    if not isinstance(value, list) or not value:
        raise ValueError(
            f"JSON schema: {path} must be a non-empty list of schemas, got {shown(value)}."
        )
    for i, one in enumerate(value):
        _check_schema(one, f"{path}/{i}")


def _check_format(schema: Mapping[str, Any], path: str) -> None:
    value = schema["format"]
    if not isinstance(value, str):
        raise ValueError(f"JSON schema: {path} must be a name, got {shown(value)}; {_REMEDY}.")
    if value not in keywords.FORMATS and not keywords.is_annotation(schema):
        raise ValueError(
            f"JSON schema: {path} must be one of {', '.join(sorted(keywords.FORMATS))}, or a "
            f"pattern in its stead, got {shown(value)}; {_REMEDY}."
        )


def _check_value(name: str, value: Any, path: str) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    wrong = None
    if name in keywords.NUMBERS:
        wrong = _wrong_number(name, value) if is_number else "a number"
    elif name in keywords.COUNTS and not (is_number and value >= 0 and value % 1 == 0):
        wrong = "an integer that is not negative"
    elif name in _LEAST_COUNTS and value > keywords.MAX_COUNT:
        wrong = f"an integer from 0 to {keywords.MAX_COUNT}"
    elif name == "$ref" and not (isinstance(value, str) and value.startswith("#")):
        wrong = "a place in the same schema, such as '#/$defs/name'"
    elif name == "type" and not _is_type(value):
        wrong = f"one or a list of {', '.join(sorted(keywords.TYPES))}"
    elif name == "pattern" and not isinstance(value, str):
        wrong = "a regular expression"
    elif name == "enum" and not (isinstance(value, list) and value):
        wrong = "a non-empty list"
    elif name in ("enum", "const") and _has_inexact(value):
        wrong = f"made of integers that are exact, up to {keywords.MAX_INTEGER}"
    elif name == "required" and not (
        isinstance(value, list) and all(isinstance(one, str) for one in value)
    ):
        wrong = "a list of names"
    if wrong is not None:
        raise ValueError(f"JSON schema: {path} must be {wrong}, got {shown(value)}; {_REMEDY}.")


def _wrong_number(name: str, value: float) -> str | None:
    """What a number must be, if it is not that. A bound beyond exact integers is pulled in if it
    still admits all numbers that can be written; one on the other side is an error."""
    if name == "multipleOf":
        return (
            None
            if 0 < value <= keywords.MAX_INTEGER
            else (f"more than 0, and at most {keywords.MAX_INTEGER}")
        )
    far = value if name in ("minimum", "exclusiveMinimum") else -value
    return (
        None
        if far < keywords.MAX_INTEGER
        else (f"within {keywords.MAX_INTEGER} of 0, as numbers beyond it are not exact")
    )


def _has_inexact(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_inexact, value.values()))
    if isinstance(value, list):
        return any(map(_has_inexact, value))
    return isinstance(value, int) and abs(value) > keywords.MAX_INTEGER


def _is_type(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(one, str) and one in keywords.TYPES for one in values)


def _parsed(spec: GrammarSpec) -> Any:
    try:
        return json.loads(spec.source)
    except RecursionError:
        raise ValueError(
            f"the {spec.kind} grammar is nested too deep, the limit is {MAX_DEPTH}; make it "
            "flatter."
        ) from None


def _check_depth(spec: GrammarSpec, depth: int) -> None:
    """Limit the nesting, since grammar parsers recurse."""
    if depth > MAX_DEPTH:
        raise ValueError(
            f"the {spec.kind} grammar is nested {depth} deep, the limit is {MAX_DEPTH}; make it "
            "flatter."
        )


def _depth_of_value(value: Any) -> int:
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, (Mapping, list))]:
        depth += 1
        level = [
            inner for one in level for inner in (one.values() if isinstance(one, Mapping) else one)
        ]
    return depth


def _depth_of_text(text: str) -> int:
    """Approximate nesting of brackets: quoted ones count too."""
    depth = most = 0
    for char in text:
        if char in "([{":
            depth += 1
            most = max(most, depth)
        elif char in ")]}":
            depth = max(0, depth - 1)
    return most
