"""Grammars of every kind: which texts follow them, and which tokens their masks allow."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from quire.structured import Grammar, GrammarSpec, GrammarState
from quire.structured_outputs import backend_llguidance
from quire.structured_outputs.backend_llguidance import LLGuidance
from quire.structured_outputs.structural_tags import tag_as_lark
from quire.structured_outputs.token_table import TokenTable
from tests.unit.structured_outputs.grammars import (
    NUM_TOKENS,
    NUM_WORDS,
    OTHER_END,
    SPECIAL,
    TABLE,
    allowed,
    compiled,
    follows,
)

HEX = r'root ::= "\x41b" [\x41c]+ "\\x41" # "\x41b"'
CALL = {"type": "tag", "begin": "<f>", "content": {}, "end": "</f>"}
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
CALL["content"] = {"type": "json_schema", "json_schema": NUMBER}


def tags(**options: Any) -> dict[str, Any]:
    several = {"type": "tags_with_separator", "tags": [CALL], "separator": ";", **options}
    return {"type": "structural_tag", "format": several}


TRIGGERED = {
    "structures": [{"begin": "<f>", "schema": NUMBER, "end": "</f>"}],
    "triggers": ["<f"],
}
ONE = '<f>{"n": 1}</f>'


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        ({"regex": "a+|bc"}, ["a", "aa", "bc"], ["", "b", "abc", "xa", "bca"]),
        ({"regex": "^[^x]{2}$"}, ["é日", "a\n"], ["a", "ax", "abc"]),
        ({"choice": ["no", "no way", "日本"]}, ["no", "no way", "日本"], ["", "n", "no w", "日"]),
        ({"choice": ['a.b"\\n', "(x"]}, ['a.b"\\n', "(x"], ["axb", "x"]),
        ({"json_object": True}, ["{}", '{"a": [1, null]}'], ["", "[]", "1", '{"a"}']),
        ({"grammar": 'start: "(" start ")" | "x"'}, ["x", "((x))"], ["(x", "()", ""]),
        ({"grammar": 'root ::= "(" root ")" | "x"'}, ["x", "((x))"], ["(x", "()", ""]),
        ({"grammar": HEX}, [r"AbA\x41", r"Abc\x41"], ["\u041bA\\x41", "Ab\u041c\\x41"]),
        ({"structural_tag": tags()}, ["", ONE, f"{ONE};{ONE}"], ["x", f"{ONE};", "<f>{}</f>"]),
        ({"structural_tag": tags(at_least_one=True)}, [ONE], ["", "hi"]),
        ({"structural_tag": tags(stop_after_first=True)}, [ONE], [f"{ONE};{ONE}"]),
        ({"structural_tag": TRIGGERED}, ["hi", ONE, f"so {ONE}."], ["<f>{}</f>", "<f>"]),
    ],
)
def test_texts(constraint: dict[str, Any], good: list[str], bad: list[str]) -> None:
    grammar = compiled(**constraint)
    assert [text for text in good if not follows(grammar, text)] == []
    assert [text for text in bad if follows(grammar, text)] == []


SCHEMAS: list[tuple[Any, list[Any], list[Any]]] = [
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "日本語"], ["a", "abcd"]),
    ({"type": "string", "pattern": "^a+$"}, ["a", "aaa"], ["", "ab"]),
    ({"type": "string", "pattern": "b"}, ["b", "abc"], ["ac"]),
    ({"type": "string", "format": "date"}, ["2024-02-29", "0001-12-31"],
     ["2023-02-29", "2100-02-29", "2024-04-31", "0000-01-01"]),
    ({"type": ["string", "null"], "format": "date"}, ["2024-02-29", None], ["2023-02-29"]),
    ({"type": "string", "format": "date", "pattern": "^2023-02-(28|29)$"},
     ["2023-02-28"], ["2023-02-29"]),
    ({"format": "date-time", "enum": ["2024-02-29T00:00:00Z", "2023-02-29T00:00:00Z", 5]},
     ["2024-02-29T00:00:00Z", 5], ["2023-02-29T00:00:00Z"]),
    ({"type": "string", "format": "time"}, ["23:59:59Z", "01:02:03.5+01:00"],
     ["24:00:00Z", "23:59:60Z", "1:02:03Z"]),
    ({"type": "string", "format": "uuid"}, ["2eb8aa08-aa98-11ea-b4aa-73b441d16380"], ["2eb8aa08"]),
    ({"type": "string", "format": "ipv4"}, ["1.2.3.4"], ["1.2.3.256", "1.2.3"]),
    ({"type": "integer", "minimum": -3, "exclusiveMaximum": 12}, [-3, 0, 11], [-4, 12, 1.5]),
    ({"type": "integer", "maximum": 2**63 - 1, "minimum": -(2**63)}, [0, 2**53 - 1], [2**63 + 1]),
    ({"type": "integer", "format": "int32"}, [0, 2**31 - 1], [2**31]),
    ({"type": "number", "format": "double"}, [0.5, -1], ["a"]),
    ({"type": "number", "minimum": 0.5, "maximum": 2}, [0.5, 1, 2], [0.4, 2.1]),
    ({"type": "integer", "multipleOf": 7}, [0, 7, 140], [1, 8]),
    ({"enum": ["a", 1, None, {"k": [1]}]}, ["a", 1, None, {"k": [1]}], ["b", 2, {}]),
    ({"const": {"x": 1}}, [{"x": 1}], [{"x": 2}, {}]),
    ({"type": ["integer", "null"]}, [1, None], ["a", True]),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
     [[1], [1, 2]], [[], [1, 2, 3], ["a"]]),
    ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False},
     [[1, True], [1]], [[True], [1, True, 1]]),
    ({"type": "array", "items": [{"type": "integer"}], "additionalItems": False},
     [[1], []], [["a"], [1, 1]]),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]},
     [{"a": 1}, {"a": 1, "b": []}], [{}, {"b": 1}, {"a": "x"}, {"a": 1, "c": 1}]),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, [{}, {"x": 1}], [{"x": "y"}]),
    ({"type": "object", "patternProperties": {"^k": {"type": "null"}},
      "additionalProperties": False}, [{}, {"k1": None}], [{"x": None}, {"k": 1}]),
    ({"type": "object", "propertyNames": {"pattern": "^k[0-9]$"},
      "additionalProperties": {"type": "integer"}}, [{}, {"k1": 1, "k2": 2}],
     [{"x": 1}, {"k1": "a"}]),
    ({"type": "object", "propertyNames": {"$ref": "#/$defs/e"}, "$defs": {"e": {"enum": ["k"]}}},
     [{}, {"k": 1}], [{"x": 1}]),
    ({"type": ["string", "null"], "format": "uuid4", "pattern": "^0"},
     ["0eb8aa08-aa98-41ea-b4aa-73b441d16380", None], ["2eb8aa08-aa98-41ea-b4aa-73b441d16380", "0"]),
    ({"format": "ipv4network"}, ["10.0.0.0/8", 5], ["10.0.0.1/8"]),
    ({"type": "object", "propertyNames": {"type": "string", "enum": ["a.b", "c"]}},
     [{}, {"a.b": 1, "c": "x"}], [{"axb": 1}]),
    ({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}]}, [5, "a"], ["ab", None]),
    ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, [5, None], ["ab", 1.5]),
    ({"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"], "type": "object"},
                {"properties": {"b": {"type": "integer"}}, "required": ["b"]}]},
     [{"a": 1, "b": 2}], [{"a": 1}, {"a": 1, "b": "x"}]),
    ({"$defs": {"n": {"type": "integer"}}, "type": "array", "items": {"$ref": "#/$defs/n"}},
     [[], [1]], [["a"]]),
    ({"type": "object", "properties": {"next": {"$ref": "#"}, "v": {"const": 1}},
      "required": ["v"]}, [{"v": 1}, {"next": {"v": 1}, "v": 1}], [{"next": {}, "v": 1}, {}]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), SCHEMAS, ids=[str(s)[:40] for s, *_ in SCHEMAS])
def test_a_schema_admits_what_validates(schema: Any, good: list[Any], bad: list[Any]) -> None:
    grammar = compiled(json=schema)
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for value in good:
        assert follows(grammar, json.dumps(value, ensure_ascii=False)), value
        if "additionalItems" not in schema:  # is none of this draft
            assert validator.is_valid(value)
    assert [value for value in bad if follows(grammar, json.dumps(value))] == []


def test_whitespace_is_bounded() -> None:
    grammar = compiled(json=NUMBER)
    for text in ('{"n":1}', '{"n": 1}', '{\n  "n": 1\n}', '{"n"  :1}'):
        assert follows(grammar, text), text
    for text in ('{"n":   1}', '{"n":1\n\n}', '{"n":\t1}', ' {"n":1}', '{"n":1} '):
        assert not follows(grammar, text), text
    assert not follows(compiled(json=NUMBER, disable_any_whitespace=True), '{"n": 1}')
    assert follows(compiled(json=NUMBER, whitespace_pattern="\\t{1,3}"), '{"n":\t\t1}')
    assert follows(compiled(json=NUMBER, whitespace_pattern=""), '{"n":1}')
    assert not follows(compiled(json=NUMBER, whitespace_pattern=""), '{"n": 1}')
    assert not follows(compiled(structural_tag=TRIGGERED), '<f>{"n":     1}</f>')


def test_objects_can_be_closed_everywhere() -> None:
    schema = {"type": "object", "properties": {"a": {}}, "additionalProperties": True}
    assert follows(compiled(json=schema), '{"b":1}')
    assert not follows(compiled(json=schema, disable_additional_properties=True), '{"b":1}')


@pytest.mark.parametrize(
    "constraint",
    [{"json": {}}, {"regex": "(.|\\n)*"}, {"grammar": "root ::= [^\\x00]*"},
     {"structural_tag": TRIGGERED}],
    ids=["json", "regex", "ebnf", "tags"],
)  # fmt: skip
def test_special_tokens_and_further_ends_are_never_allowed(constraint: dict[str, Any]) -> None:
    grammar = compiled(**constraint)
    for token_ids in ([], [ord('"'), ord("a")]):
        found = allowed(grammar, token_ids)
        assert found is not None and len(found) > 2
        assert not found & {SPECIAL, OTHER_END}


def test_tokens_of_several_bytes_and_parts_of_characters_are_allowed() -> None:
    found = allowed(compiled(regex="(ab|é)+"), [])
    assert found == {ord("a"), 256 + 3, 0xC3, 256 + 5}


def test_masks_of_strings_with_a_length_allow_what_fits() -> None:
    """Tokens are looked at together, by how long they are: where the length ends too."""
    grammar = compiled(json={"type": "string", "maxLength": 3})
    begun = [ord('"')]
    longer = {256 + 3, 256 + 4, 256 + 6}  # ab, true, 2 characters of 3 bytes
    for text, wanted in [("", {259, 262}), ("a", {259, 262}), ("aa", set()), ("aaa", set())]:
        found = allowed(grammar, begun + list(text.encode()))
        assert found is not None and found & longer == wanted, text


def test_many_optional_properties_are_followed() -> None:
    """The library's own limits are for fewer, and a mask that meets them allows only the end."""
    names = {f"p{i}": {"type": "integer"} for i in range(900)}
    grammar = compiled(json={"type": "object", "properties": names})
    assert follows(grammar, '{"p1":1,"p700":2,"p899":3}')
    assert not follows(grammar, '{"p1":1,"p0":2}')


def test_a_state_that_met_a_limit_says_so_and_a_wrong_token_is_none() -> None:
    state = compiled(regex="ab").new_state()
    assert not state.accept(ord("x")) and state.error() is None
    names = {f"p{i}": {"type": "integer"} for i in range(2500)}
    source = json.dumps({"type": "object", "properties": names})
    table = TokenTable(tokens=TABLE.tokens, end_token_ids=TABLE.end_token_ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend_llguidance, "MAX_ITEMS_IN_ROW", 2000)
        wide = LLGuidance(table).compile(GrammarSpec(kind="json", source=source)).new_state()
    assert not all(wide.accept(byte) for byte in b'{"p')
    assert "Current row has" in str(wide.error())


def write(grammar: Grammar, text: str, beside: Sequence[GrammarState] = ()) -> str | None:
    """By masks, as an engine does, beside other states; the error that was met."""
    state = grammar.new_state()
    masks = np.zeros((1 + len(beside), NUM_WORDS), dtype=np.int32)
    for byte in text.encode():
        failed = grammar.fill_all([state, *beside], masks)
        assert failed == ([] if state.error() is None else [0])
        if failed or not state.accept(byte):
            return state.error() or "not allowed"
    return None


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a large vocabulary on a machine of several cores."""
    monkeypatch.setattr(backend_llguidance, "LARGE_VOCABULARY", 1)
    monkeypatch.setattr(backend_llguidance, "_num_threads", lambda: 3)


WORDS = "the a quick error foo bar it was one two".split()


@pytest.mark.usefixtures("lanes")
@pytest.mark.parametrize("num_beside", [0, 5])
def test_who_uses_up_what_a_grammar_shares_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, num_beside: int
) -> None:
    """All who follow one in a lane share its lexer, which has a limit on what it remembers."""
    monkeypatch.setattr(backend_llguidance, "MAX_SHARED_STATES", 8000)
    grammar = compiled(regex=".*error.{0,100}.*foo.{0,100}.*")
    beside = [grammar.new_state() for _ in range(num_beside)]
    chance = random.Random(0)
    for _ in range(20):
        assert write(grammar, " ".join(chance.choices(WORDS, k=100)), beside) is None
    assert grammar.is_spent


@pytest.mark.usefixtures("lanes")
def test_states_in_lanes_are_filled_as_a_state_alone() -> None:
    texts = ["", "{", '{"a":', '{"a":"xy', '{"a":"xyz"', '{"a":"xyz","b"', '{"a":"xyz","b":17'] * 3
    properties = {"a": {"type": "string", "maxLength": 5}, "b": {"type": "integer"}}
    grammar = compiled(json={"type": "object", "properties": properties, "required": ["a", "b"]})
    before = grammar.num_bytes
    states = [grammar.new_state() for _ in texts]
    assert grammar.num_bytes == 3 * before  # of as many lanes
    for state, text in zip(states, texts, strict=True):
        assert all(state.accept(byte) for byte in text.encode())
    masks = np.zeros((len(texts), NUM_WORDS), dtype=np.int32)
    assert grammar.fill_all(states, masks) == []
    for text, mask in zip(texts, masks, strict=True):
        assert set(np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))) == (
            allowed(grammar, list(text.encode()))
        )
    del states, state
    assert grammar.new_state() is not None and grammar.num_bytes == 3 * before  # lanes are kept


def test_what_one_text_alone_uses_up_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_llguidance, "MAX_SHARED_STATES", 1000)
    monkeypatch.setattr(backend_llguidance, "MAX_OWN_STATES", 2000)
    grammar = compiled(regex=".*error.{0,100}.*foo.{0,100}.*")
    long, short = " ".join(random.Random(0).choices(WORDS, k=200)), " ".join(WORDS[:3])
    assert "too many states" in str(write(grammar, long))
    assert write(grammar, short) is None
    monkeypatch.setattr(backend_llguidance, "MAX_ANEW_S", -1.0)  # nothing is quick enough
    slow = compiled(regex=".*error.{0,100}.*foo.{0,100}.*x?")
    assert "too many states" in str(write(slow, long))
    assert slow.is_spent  # so the next request has it compiled anew, in a thread


def test_a_grammar_with_patterns_counts_for_more_the_more_it_is_used() -> None:
    for constraint, grows in (({"regex": "[a-z ]*"}, True), ({"json": {"type": "string"}}, False)):
        grammar = compiled(**constraint)
        before = grammar.num_bytes
        assert write(grammar, "abc def" if grows else '"abc def"') is None
        assert (grammar.num_bytes > before) is grows


def test_anchors_as_python_writes_them() -> None:
    grammar = compiled(regex=r"\A[ab]{2}\Z")
    assert follows(grammar, "ab") and not follows(grammar, "abc")
    grammar = compiled(json={"type": "string", "pattern": r"\Aab\Z"})
    assert follows(grammar, '"ab"') and not follows(grammar, '"xab"')
    names = {"type": "object", "patternProperties": {r"\Ak\Z": {}}, "additionalProperties": False}
    assert follows(compiled(json=names), '{"k":1}')
    assert not follows(compiled(json=names), '{"kk":1}')
    assert follows(compiled(regex=r"a\\Z"), r"a\Z")  # a backslash, and a letter


def test_spaces_are_those_of_json_and_nothing_else_is_one() -> None:
    schema = {"type": "array", "maxItems": 0}
    spaced = compiled(json=schema, whitespace_pattern=r"\s{0,2}")
    assert follows(spaced, "[\t ]") and not follows(spaced, "[\v]")
    for pattern in ("x", " x?", ".", r"\S", "( |/)*", r"[^a]"):
        with pytest.raises(ValueError, match="matches more than spaces, tabs and line ends"):
            compiled(json=schema, whitespace_pattern=pattern)
    for pattern in ("", "[ ]*", r"[ \n]{0,3}", r"\t"):
        compiled(json=schema, whitespace_pattern=pattern)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"properties": {"a": {"properties": {"x": {}}, "type": "object", "maxProperties": 2,
          "additionalProperties": True}}},
         "#/properties/a: minProperties and maxProperties can be followed only where"),
        ({"properties": {"b": {}, "a": {"type": "integer", "minimum": 2, "maximum": 1}},
          "required": ["a"]},
         r"#/properties/a: Unsatisfiable schema: minimum \(2\) is greater than maximum \(1\)"),
        ({"$defs": {"d": {"anyOf": [{"type": "string", "pattern": "(a"}]}}, "$ref": "#/$defs/d"},
         r"#/\$defs/d/anyOf/0: regex parse error: \(a . error: unclosed group"),
        ({"type": "string", "format": "date", "pattern": "x"},
         "#: Unsatisfiable schema: no text has all of its patterns, formats and lengths"),
        ({"items": {"$ref": "#/$defs/none"}}, "Pointer '/\\$defs/none' does not exist"),
    ],
)  # fmt: skip
def test_what_only_the_compiler_finds_is_told_where_and_in_our_words(
    schema: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^the json grammar cannot be used: .*{message}"):
        compiled(json=schema)


def test_bounds_between_which_a_tag_would_write_nothing_are_refused() -> None:
    for bounds, is_good in (
        ({"minimum": 0.0180001, "maximum": 0.0180004}, False),
        ({"exclusiveMinimum": 0.5, "maximum": 0.5000001}, False),
        ({"minimum": 0.1234565, "exclusiveMaximum": 0.123457}, False),
        ({"minimum": -0.5000001, "maximum": -0.5}, True),
        ({"exclusiveMaximum": 0}, True),
    ):
        schema = {"type": "number", **bounds}
        tag = {"structures": [{"begin": "<f>", "schema": schema, "end": ";"}], "triggers": ["<f"]}
        if is_good:
            assert not follows(compiled(structural_tag=tag), "<f>;")
        else:
            with pytest.raises(ValueError, match="have no number of 6 decimals between"):
                compiled(structural_tag=tag)


def test_a_long_grammar_counts_for_more_in_the_cache() -> None:
    few, many = ["a", "b"], [f"word number {i}" for i in range(5000)]
    least = backend_llguidance.LEAST_BYTES
    assert least < compiled(json={"enum": few}).num_bytes < least + (1 << 15)
    assert compiled(json={"enum": many}).num_bytes > 2 << 20


def test_many_states_are_filled_as_one_is() -> None:
    for constraint in ({"regex": "[a-z]*"}, {"grammar": "root ::= [a-z]*"}):
        grammar = compiled(**constraint)
        states = [grammar.new_state() for _ in range(40)]
        masks = np.zeros((40, NUM_WORDS), dtype=np.int32)
        grammar.fill_all(states, masks)
        wanted = np.zeros(NUM_WORDS, dtype=np.int32)
        states[0].fill(wanted)
        assert (masks[:, : NUM_TOKENS // 32] == wanted[: NUM_TOKENS // 32]).all()


@pytest.mark.parametrize("source", ['root ::= "a" x | "b"\nx ::= x "c"', 'start: "a" x\nx: x "c"'])
@pytest.mark.parametrize("num_states", [1, 40])
def test_a_state_where_nothing_may_follow_says_so(source: str, num_states: int) -> None:
    grammar = compiled(grammar=source)
    states = [grammar.new_state() for _ in range(num_states)]
    masks = np.zeros((num_states, NUM_WORDS), dtype=np.int32)
    assert grammar.fill_all(states, masks) == []
    assert states[-1].error() is None and states[-1].accept(ord("a"))
    assert grammar.fill_all(states, masks) == [num_states - 1]
    assert str(states[-1].error()).startswith("comes to a place where no token may follow")
    alone = grammar.new_state()
    assert alone.accept(ord("a"))
    alone.fill(masks[0])
    assert alone.error() == states[-1].error()


def test_schemas_that_xgrammar_would_pass_over_are_refused_in_its_tags() -> None:
    for schema in ({"allOf": [{"type": "integer"}]}, {"$ref": "#/$defs/a", "type": "string",
                   "maxLength": 3, "$defs": {"a": {"type": "string"}}}):  # fmt: skip
        tag = {"structures": [{"begin": "<f>", "schema": schema, "end": ""}], "triggers": ["<f"]}
        with pytest.raises(ValueError, match="cannot be honoured inside a structural tag"):
            compiled(structural_tag=tag)


NULLABLE = {"$ref": "#/$defs/a", "$defs": {"a": {"type": ["integer", "null"]}}}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string", "enum": ["a", "b"]}, ["a", "b"], ["c"]),
        ({"type": ["string", "null"], "enum": ["a", 1, None]}, ["a", None], [1]),
        ({"type": "integer", "enum": [1, 2.0, 1.5, True]}, [1, 2], [1.5, True]),
        ({"type": "number", "const": 1}, [1], [2]),
        ({"type": "object", "anyOf": [{"properties": {"a": {}}, "required": ["a"]}]},
         [{"a": 1}], [{}]),
        ({"type": "string", "oneOf": [{"const": "a"}, {"const": "b"}]}, ["a", "b"], ["c"]),
        ({"type": ["null", "number"], **NULLABLE}, [1, None], [1.5, "a"]),
        ({"$ref": "#/$defs/P«n» %20", "type": "integer", "$defs": {"P«n»  ": {"type": "integer"}}},
         [1], ["a"]),
        ({"properties": {"a": {"type": "string", "enum": ["a", 1]}}, "required": ["a"]},
         [{"a": "a"}], [{"a": 1}]),
    ],
)  # fmt: skip
def test_a_type_beside_what_xgrammar_follows_alone(
    schema: Any, good: list[Any], bad: list[Any]
) -> None:
    tag = {"structures": [{"begin": "<f>", "schema": schema, "end": ";"}], "triggers": ["<f"]}
    grammar = compiled(structural_tag=tag)
    assert [one for one in good if not follows(grammar, f"<f>{json.dumps(one)};")] == []
    assert [one for one in bad if follows(grammar, f"<f>{json.dumps(one)};")] == []


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "string", "enum": [31, None]}, "no value of 'enum' at .*/enum is of its type"),
        ({"type": ["string", "null"], "const": 1}, "of its type, null or string; list one that is"),
        ({"type": "string", "anyOf": [{"type": "integer"}, {"minLength": 1}]},
         "'type' beside 'anyOf' at .* cannot be honoured"),
        ({"type": "string", "anyOf": [{}]}, "'type' beside 'anyOf'"),
        ({"type": "string", "oneOf": [{"const": 1}, {"const": "a"}]}, "'type' beside 'anyOf'"),
        ({"type": "integer", **NULLABLE}, r"'type' beside '\$ref' at .* cannot be honoured"),
        ({"type": "integer", "$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [
            {"type": "integer"}, {"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}, "b": True}},
         r"'type' beside '\$ref'"),
    ],
)  # fmt: skip
def test_a_type_that_xgrammar_would_pass_over_is_refused(schema: Any, message: str) -> None:
    tag = {"structures": [{"begin": "<f>", "schema": schema, "end": ";"}], "triggers": ["<f"]}
    with pytest.raises(ValueError, match=message):
        compiled(structural_tag=tag)


def test_a_number_of_two_digits_in_a_tags_grammar_ends_with_them() -> None:
    content = {"type": "grammar", "grammar": r'root ::= "\x41b"'}
    one = {"type": "tag", "begin": "<f>", "content": content, "end": ";"}
    form = {"type": "triggered_tags", "triggers": ["<f"], "tags": [one], "at_least_one": True}
    grammar = compiled(structural_tag={"type": "structural_tag", "format": form})
    assert follows(grammar, "<f>Ab;") and not follows(grammar, "<f>\u041b;")


def test_plain_tags_are_written_in_lark_and_others_are_not() -> None:
    assert (
        tag_as_lark(tags(), lambda schema: "J") == '((("<f>" J "</f>")) (";" (("<f>" J "</f>")))*)?'
    )
    free = {"format": {"type": "triggered_tags", "triggers": ["<f"], "tags": [CALL]}}
    assert tag_as_lark(free, lambda schema: "J") is None
    assert tag_as_lark({"format": {**CALL, "zzz": 1}}, lambda schema: "J") is None
    assert tag_as_lark({}, lambda schema: "J") is None
