"""No comma is allowed where no other property can follow."""

from __future__ import annotations

from typing import Any

import pytest

from quire.structured_outputs.used_up import probes
from tests.unit.structured_outputs.grammars import allowed, compiled, follows

ONLY_A: dict[str, Any] = {
    "type": "object", "patternProperties": {"^a$": {}}, "additionalProperties": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"propertyNames": {"enum": ["a", "b"]}, "required": ["a", "b"]}, '{"a":1,"b":1'),
        ({"propertyNames": {"const": "a"}}, '{"a":1'),
        ({"propertyNames": {"maxLength": 0}, "required": [""]}, '{"":1'),
        ({"propertyNames": {"minLength": 3, "maxLength": 2}}, "{"),
        (
            {"allOf": [
                {"type": "object", "propertyNames": {"enum": ["a", "ab"]}, "required": ["ab"]},
                {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"]},
            ]},
            '{"a":1,"ab":1',
        ),
    ],
)  # fmt: skip
def test_a_list_of_names_comes_to_its_end(schema: dict[str, Any], text: str) -> None:
    grammar = compiled(json={"type": "object", **schema})
    assert follows(grammar, text + "}")
    assert ord(",") not in (allowed(grammar, [*text.encode()]) or ())


@pytest.mark.parametrize(
    "schema",
    [
        {**ONLY_A, "required": ["a"]},
        {**ONLY_A, "properties": {"a": {}}},
        {**ONLY_A, "patternProperties": {"^[ab]$": {}, "x": False}, "required": ["b", "a"]},
        {**ONLY_A, "patternProperties": {r"^(?:a|\x01)$": {}}, "required": ["a"]},
        {"allOf": [ONLY_A, {"type": "object", "properties": {"a": {}}, "required": ["a"]}]},
        {"allOf": [{"$ref": "#/$defs/o"}, {"required": ["a"]}], "$defs": {"o": ONLY_A}},
        {"items": {**ONLY_A, "required": ["a"]}},
    ],
)
def test_a_pattern_without_names_left_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"the pattern .* of names within # cannot be honoured"):
        compiled(json=schema)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (ONLY_A, '{"a":1}'),
        ({**ONLY_A, "patternProperties": {"^a": {}}, "required": ["a"]}, '{"a":1,"ab":2}'),
        ({**ONLY_A, "patternProperties": {"^[ab]$": {}}, "required": ["a"]}, '{"a":1,"b":2}'),
        ({**ONLY_A, "additionalProperties": True, "required": ["a"]}, '{"a":1,"c":2}'),
    ],
)
def test_patterns_with_names_left_are_followed(schema: dict[str, Any], text: str) -> None:
    assert follows(compiled(json=schema), text)


def test_only_patterns_that_a_given_name_matches_are_probed() -> None:
    schema = {**ONLY_A, "properties": {"b": {}}}
    assert list(probes({"items": schema, "anyOf": [schema]})) == []
    twice = {**schema, "required": ["a"]}
    (probe,) = probes({"items": twice, "additionalProperties": twice})
    assert (probe.pattern, probe.text) == ("^a$", '{"b":0,"a":0,')
