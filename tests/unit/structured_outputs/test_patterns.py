"""Classes have only what Python and JavaScript agree on, whichever of them reads the answer."""

from __future__ import annotations

import json
import re

import pytest

from quire.structured_outputs.patterns import agreed_classes
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
        (r"[[a]\d", "[[a][0-9]"),
        (r"[a\]\d]", r"[a\]0-9]"),
        (r"(?is:a.b)", r"(?is:a.b)"),
        (r"\p{L}\D", r"\p{L}[\P{Nd}]"),
    ],
)
def test_what_becomes_of_a_pattern(pattern: str, wanted: str) -> None:
    assert agreed_classes(pattern) == wanted


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
