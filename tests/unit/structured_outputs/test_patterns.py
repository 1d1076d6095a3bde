"""Classes have only what Python and JavaScript agree on, whichever of them reads the answer."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from quire.structured_outputs.patterns import agreed_classes, plain_escapes
from tests.unit.structured_outputs.grammars import compiled, follows

ASCII = [chr(code) for code in range(0x20, 0x7F) if chr(code) not in '"\\']  # written as they are
DISPUTED = list("éя空١\u00a0\u0085\u1680\u180e\u2028\u2029\u202f\u3000\ufeffſ²—\u200b\n\r\t")
# What JavaScript's escapes match (ECMA-262, section 22.2.2.9).
ECMA = {
    "d": re.compile("[0-9]"),
    "w": re.compile("[0-9A-Za-z_]"),
    "s": re.compile("[\t-\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]"),
}


@pytest.mark.parametrize("letter", "dws")
@pytest.mark.parametrize("form", ["{0}", "{1}", "[{0}]", "[{1}]", "[^{0}]", "[^{1}]", "[{1}é]"])
def test_a_class_has_only_what_both_dialects_have(letter: str, form: str) -> None:
    escapes = (f"\\{letter}", f"\\{letter.upper()}")
    pattern = form.format(*escapes)
    is_opposite = pattern.startswith("[^") is (escapes[0] in pattern)

    def is_in_ecma(one: str) -> bool:
        return bool(ECMA[letter].fullmatch(one)) is not is_opposite or one in pattern.strip("[]")

    good = [one for one in ASCII + DISPUTED if re.fullmatch(pattern, one) and is_in_ecma(one)]
    of_json = compiled(json={"type": "string", "pattern": f"^{pattern}$"})
    of_text = compiled(regex=pattern)
    for one in ASCII + DISPUTED:
        admits = follows(of_json, json.dumps(one, ensure_ascii=False))
        assert one in good if admits else one not in good or not one.isascii(), (pattern, one)
        assert follows(of_text, one) is admits, (pattern, one)


def test_a_dot_matches_no_line_end_of_either_dialect() -> None:
    of_json, of_text = compiled(json={"type": "string", "pattern": "^.$"}), compiled(regex=".")
    for one in ASCII + DISPUTED:
        is_one = one not in "\n\r\u2028\u2029"
        assert follows(of_json, json.dumps(one, ensure_ascii=False)) is is_one, one
        assert follows(of_text, one) is is_one, one


@pytest.mark.parametrize("pattern", [r"^[\s\S]$", r"^[\w\W]$", r"^[\d\D]$", "(?s)^.$"])
def test_a_class_of_everything_stays_one(pattern: str) -> None:
    grammar = compiled(json={"type": "string", "pattern": pattern})
    for one in ("a", "é", "空", "\u2028", r"\n", "\ufeff"):
        assert follows(grammar, f'"{one}"'), one


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        (r"\d{3}-\d", "[0-9]{3}-[0-9]"),
        (r"\\d[.]\.", r"\\d[.]\."),
        (r"[^\d.]", r"[^\p{Nd}.]"),
        (r"[]\w]", "[]0-9A-Z_a-z]"),
        (r"[^]\w]", r"[^]0-9A-Z_a-z\u0080-\U0010FFFF]"),
        (r"[[a]\d", "[[a][0-9]"),
        (r"[a\]\d]", r"[a\]0-9]"),
        (r"(?is:a.b)", r"(?is:a.b)"),
        (r"[^]-a\d]", r"[^]-a\p{Nd}]"),
        (r"(?i)a(?P<x>b)(?-x)", r"(?i)a(?P<x>b)(?-x)"),
        (r"[(?x)]\(?x", r"[(?x)]\(?x"),
        (r"\p{L}\D", r"\p{L}[\P{Nd}]"),
    ],
)
def test_what_becomes_of_a_pattern(pattern: str, wanted: str) -> None:
    assert agreed_classes(pattern) == wanted


@pytest.mark.parametrize("pattern", [r"^\<[a-z]+\>$", r"^[\<][a-z]+[^\<a-z]$"])
def test_angle_brackets_behind_a_backslash_are_themselves(pattern: str) -> None:
    """As in Python and JavaScript; in Rust they would be the ends of words."""
    content = {"type": "json_schema", "json_schema": {"type": "string", "pattern": pattern}}
    tag = {"format": {"type": "tag", "begin": "", "content": content, "end": ""}}
    of_text = compiled(regex=pattern)
    assert follows(of_text, "<ab>") and not follows(of_text, "ab")
    for constraint in ({"json": content["json_schema"]}, {"structural_tag": tag}):
        grammar = compiled(**constraint)
        assert follows(grammar, '"<ab>"') and not follows(grammar, '"ab"')
    names = compiled(json={"type": "object", "patternProperties": {pattern: {"type": "null"}}})
    assert follows(names, '{"<a>": null}') and not follows(names, '{"a": null}')


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        (r"[[a].\d]", "[[a].0-9]"),
        (r"[^a[^\d]]", "[^a[^0-9]]"),
        (r"[\d--[5.]].", r"[0-9--[5.]][^\n\r\u2028\u2029]"),
    ],
)
def test_classes_in_classes_of_a_regular_expression(pattern: str, wanted: str) -> None:
    assert agreed_classes(pattern, may_nest=True) == wanted


@pytest.mark.parametrize(
    ("body", "characters"),
    [
        (r".-\d", ".-0123456789"),
        (r"!-\d", "!-0123456789"),
        (r"-\d", "-0123456789"),
        (r"\d-", "-0123456789"),
        (r"\d-.", ".-0123456789"),
        (r"\d-\.", ".-0123456789"),
        (r"\d-a-c", "ac-0123456789"),
        (r"\d-a-c-e", "a-cde0123456789"),
        (r"\da-c-", "abc-0123456789"),
        (r"\d-\d-", "-0123456789"),
        (r"a-c-\d", "abc-0123456789"),
    ],
)
def test_a_dash_beside_a_class_is_itself_as_in_javascript(body: str, characters: str) -> None:
    of_json = compiled(json={"type": "string", "pattern": f"^[{body}]$"})
    of_text = compiled(regex=f"[{body}]")
    for one in ASCII:
        assert follows(of_json, f'"{one}"') is (one in characters), one
        assert follows(of_text, one) is (one in characters), one


@pytest.mark.parametrize(
    ("pattern", "characters"),
    [
        (r"[\d--+]", "-0123456789"),
        (r"[\d--/-9]", "-/0123456789"),
        (r"[+--\d]", "+,-0123456789"),
        (r"[--\d]", "-0123456789"),
        (r"[+-\d--/]", "-./0123456789"),
        (r"[\d-\d--/]", "-./0123456789"),
        (r"[\d-\x2B-9]", "-0123456789"),
    ],
)
def test_two_dashes_beside_a_class_are_no_operator_in_a_schema(
    pattern: str, characters: str
) -> None:
    characters += "+" * ("+" in pattern or "2B" in pattern)
    grammar = compiled(json={"type": "string", "pattern": f"^{pattern}$"})
    for one in ASCII:
        assert follows(grammar, f'"{one}"') is (one in characters), one


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"[\p{L}--\w]", "", "aéя"),
        (r"[\p{L}\p{Nd}--\d]", "aé", "5١"),
        (r"[\p{L}--[^\w]]", "az", "é"),
        (r"[^\p{L}--\w]", "1", "é"),
        (r"[\p{L}--a&&\w]", "b", "aéя"),
        (r"[\w--[a--\w]]", "b", "é"),
        (r"[\s\S--\w]", "-", "aéя"),
        (r"[--\d]", "-5", ".+a"),
        (r"[a-z~~[b]]", "a", "b"),
    ],
)
def test_what_is_taken_from_a_class_is_not_narrowed(pattern: str, good: str, bad: str) -> None:
    grammar = compiled(regex=pattern)
    assert all(follows(grammar, one) for one in good)
    assert not any(follows(grammar, one) for one in bad)


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ({"regex": r"[a~~\w]"}, r"'~~' in a class with escapes like \\w cannot be honoured"),
        ({"regex": r"[a~~[b[^\d]]]"}, r"'~~' in a class with escapes"),
        ({"regex": r"[[\w]~~a]"}, r"'~~' in a class with escapes"),
        ({"regex": r"[!-[b]\w]"}, "'-\\[' within a class is read in two ways"),
        ({"regex": r"a[b\]"}, r"a class in a pattern has no end; for the character '\[' write"),
        ({"json": {"pattern": "[[]["}}, "a class in a pattern has no end"),
        ({"regex": r"[\w-[0-9]]"}, r"write '--\[' to leave characters out"),
        ({"regex": r"(?x) [ ^\w]"}, "the flag x in a pattern cannot be honoured"),
        ({"json": {"pattern": "(?ix) [^a # [\n]"}}, "the flag x in a pattern"),
    ],
)
def test_what_cannot_be_translated_is_refused(constraint: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compiled(**constraint)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        (r"\(?s.", r"\(?s_"),
        (r"[(?s)].", r"[(?s)]_"),
        ("(?s:.).", "(?s:.)_"),
        ("(.(?s).).", "(_(?s).)_"),
        ("(?s).(?-s:._).|(?i:.(?-s).)", "(?s).(?-s:__).|(?i:.(?-s)_)"),
        ("(?s).).", "(?s).)."),
    ],
)
def test_a_flag_holds_within_its_group(pattern: str, wanted: str) -> None:
    assert agreed_classes(pattern).replace(r"[^\n\r\u2028\u2029]", "_") == wanted


@pytest.mark.parametrize("text", [r"[\]", "[", "[a]", r"[^\d", r"\p{", "(", "(?s"])
@pytest.mark.parametrize("end", ["", "]"])
def test_a_long_pattern_is_read_in_one_pass(text: str, end: str) -> None:
    pattern = text * 40_000 + end  # takes minutes if each piece looks for its end
    assert plain_escapes(pattern) == pattern
    for may_nest in (False, True):
        try:
            assert agreed_classes(pattern, may_nest=may_nest).count(text[0]) == 40_000
        except ValueError as error:
            assert "a class in a pattern has no end" in str(error)
