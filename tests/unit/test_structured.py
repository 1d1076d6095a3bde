"""The forms in which constraints are written, and the one that they become."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quire.sampling_params import SamplingParams
from quire.structured import (
    GrammarSpec,
    GuidedDecodingParams,
    StructuredOutputsParams,
    to_grammar_spec,
)


@pytest.mark.parametrize(
    ("given", "kind", "source"),
    [
        ({"json": {"type": "null"}}, "json", '{"type": "null"}'),
        ({"json": '{"type":"null"}'}, "json", '{"type": "null"}'),
        ({"json": True}, "json", "true"),
        ({"json_object": True}, "json_object", ""),
        ({"regex": "a+"}, "regex", "a+"),
        ({"choice": ["a", "b", "a"]}, "choice", '["a", "b"]'),
        ({"grammar": 'root ::= "a"'}, "ebnf", 'root ::= "a"'),
        ({"grammar": 'start: "a"'}, "lark", 'start: "a"'),
        ({"structural_tag": '{"format": {}}'}, "structural_tag", '{"format": {}}'),
    ],
)
def test_every_form_becomes_a_spec(given: dict[str, Any], kind: str, source: str) -> None:
    for params in (given, StructuredOutputsParams(**given), GuidedDecodingParams(**given)):
        spec = to_grammar_spec(params)
        assert (spec.kind, spec.source) == (kind, source)
        assert spec == to_grammar_spec(spec) and hash(spec) == hash(to_grammar_spec(params))


def test_the_schema_of_a_pydantic_model_is_taken() -> None:
    import pydantic

    class Person(pydantic.BaseModel):
        name: str

    spec = to_grammar_spec(StructuredOutputsParams(json=Person))  # type: ignore[arg-type]
    assert json.loads(spec.source)["properties"] == {"name": {"title": "Name", "type": "string"}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one of .* got none"),
        ({"json_object": False}, "got none"),
        ({"json": {}, "choice": ["a"]}, "got json and choice; keep one"),
        ({"json": "{"}, "json is not valid JSON"),
        ({"json": 3}, "must be a JSON schema, an object"),
        ({"json": {"enum": [float("nan")]}}, "must be a JSON schema"),
        ({"json_object": 1}, "json_object must be true"),
        ({"regex": ""}, "regex must be a non-empty string"),
        ({"choice": []}, "choice must be a list of non-empty strings"),
        ({"choice": ["a", ""]}, "choice must be a list of non-empty strings"),
        ({"choice": "ab"}, "choice must be a list of non-empty strings"),
        ({"structural_tag": "x"}, "structural_tag is not valid JSON"),
        ({"structural_tag": {"format": {"value": float("nan")}}}, "structural_tag: Out of range"),
        ({"regex": "a", "whitespace_pattern": " "}, "whitespace_pattern is for json"),
        ({"regexp": "a"}, "has no field 'regexp'"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_grammar_spec(given)


def test_options_reach_the_spec() -> None:
    spec = to_grammar_spec(
        StructuredOutputsParams(
            json={},
            disable_any_whitespace=True,
            disable_additional_properties=True,
            whitespace_pattern=" ?",
        )
    )
    assert not spec.any_whitespace
    assert spec.closes_objects and spec.whitespace_pattern == " ?"


@pytest.mark.parametrize(
    ("backend", "any_whitespace", "closes_objects"),
    [
        (None, True, False),
        ("auto", True, False),
        ("lm-format-enforcer", True, False),
        ("guidance:no-fallback", True, False),
        ("xgrammar:disable-any-whitespace", False, False),
        ("guidance:no-fallback,no-additional-properties", True, True),
    ],
)
def test_options_of_a_backend_are_honoured(
    backend: str | None, any_whitespace: bool, closes_objects: bool
) -> None:
    for given in (GuidedDecodingParams(json={}, backend=backend), {"json": {}, "backend": backend}):
        spec = to_grammar_spec(given)
        assert (spec.any_whitespace, spec.closes_objects) == (any_whitespace, closes_objects)


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("foo", "backend='foo': there is no backend 'foo'; it is one of auto, xgrammar"),
        ("xgrammar:fast", "there is no option of a backend 'fast'; it is one of no-fallback"),
        (3, "backend must be a non-empty string, got 3"),
    ],
)
def test_backends_and_options_that_nobody_knows_are_refused(backend: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GuidedDecodingParams(json={}, backend=backend)


def test_guided_params_of_nothing_are_none() -> None:
    assert GuidedDecodingParams.from_optional(json=None, backend="xgrammar") is None
    made = GuidedDecodingParams.from_optional(regex="a", json=None)
    assert made is not None and made.regex == "a"


def test_sampling_params_hold_a_constraint_in_any_form() -> None:
    wanted = GrammarSpec(kind="regex", source="a")
    for given in ({"regex": "a"}, StructuredOutputsParams(regex="a"), wanted):
        assert SamplingParams(structured_outputs=given).grammar == wanted
    assert SamplingParams(guided_decoding={"regex": "a"}).grammar == wanted
    assert SamplingParams().grammar is None
    assert SamplingParams(structured_outputs={"regex": "a"}).clone().grammar == wanted


def test_a_grammar_is_ebnf_where_a_rule_is_written_so() -> None:
    for text, kind in [
        ('root ::= "a"', "ebnf"),
        ('# c\n  root::="a"', "ebnf"),
        ('start: "::="', "lark"),
        ("start: /a/ // not ::= here", "lark"),
    ]:
        assert to_grammar_spec({"grammar": text}).kind == kind
