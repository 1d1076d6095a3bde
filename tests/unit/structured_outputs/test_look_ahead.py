"""Patterns without look-ahead match the same texts together, as far as Python's own says."""

from __future__ import annotations

import itertools
import re

import pytest

from quire.structured_outputs.look_ahead import split_pattern
from tests.unit.structured_outputs.grammars import compiled, follows

DURATION = (
    r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?"
    r"(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$"
)  # of zod 4.1
DECIMAL = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"  # of pydantic 2.12
PLACES = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d{0,2}0*$"
EMAIL = (
    r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+"
    r"[A-Za-z]{2,}$"
)  # of zod 4.1
DIGITS = r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,3}|(?=[\d.]{1,6}0*$)\d{0,3}\.\d{0,2}0*$)"


def _matches(pattern: str, text: str) -> bool:
    return all(re.search(one, text) for one in split_pattern(pattern))


def _texts(alphabet: str, longest: int, begin: str = "") -> list[str]:
    lengths = range(longest + 1)
    return [begin + "".join(one) for n in lengths for one in itertools.product(alphabet, repeat=n)]


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        (DURATION, [*_texts("1WYMDTHS,", 5, "P"), "P1Y2M3DT4H5M6.7S", "P1DT1H1M", "PT1M1.1S"]),
        (DECIMAL, _texts("01-+.x", 5)),
        (PLACES, _texts("01-+.x", 5)),
        (r"^(?=.*\d)(?=.*[a-z])[a-z\d]{2,3}$", _texts("1a-", 4)),
        (r"^(?=a|b$)(?:a|b)c?$", _texts("abc", 3)),
        (r"^(?=(a|(b)))[)(ab]+$", _texts("ab()", 3)),
        (r"^(?=[)]|\)a).+$", _texts("a()", 3)),
        (r"^(?!\s*$).+$", _texts("a \t", 4)),
        (r"^(?![^a]*$)b*a$", _texts("ab", 4)),
        (r"^(?![\-.]*$).*$", _texts("a-.", 4)),
        (EMAIL, [*_texts("ab@.", 7), *(f"{one}b@a.bc" for one in _texts("a.+'", 4))]),
        (r"^(?!\.)[a.]*$", _texts("a.", 4)),
        (r"^(?!-)(?!.*--)[a-]+$", _texts("a-", 5)),
        (r"^(?!.*[b\-])[ab-]*$", _texts("ab-", 4)),
        (r"^(?![^ab])[a-c]*$", _texts("abc", 4)),
        (r"^(?!.*[^a])[ab]*$", _texts("ab", 4)),
    ],
)
def test_texts_are_the_same(pattern: str, texts: list[str]) -> None:
    assert not any("(?=" in one or "(?!" in one for one in split_pattern(pattern))
    expected = [text for text in texts if re.search(pattern, text)]
    assert expected and expected != texts
    assert [text for text in texts if _matches(pattern, text)] == expected


def test_numbers_with_so_many_digits_are_numbers_that_the_given_pattern_has() -> None:
    texts = [*_texts("012-+.x", 5), "123.45", "-0123.4500", "1234.5", "123.456", "0.120"]
    found = [text for text in texts if _matches(DIGITS, text)]
    assert all(re.search(DIGITS, text) for text in found)
    number = re.compile(r"[+-]?0*(\d{0,3}|\d{0,3}\.\d{0,2}0*)")
    assert found == [
        text for text in texts if number.fullmatch(text) and any(map(str.isdigit, text))
    ]


def test_what_a_first_line_has_not_no_line_has() -> None:
    for pattern in (r"^(?!.*a)[ab\n]*$", r"^(?!.*aa)[ab\n]*$"):
        texts = _texts("ab\n", 4)
        found = [text for text in texts if _matches(pattern, text)]
        assert "b\nb" in found and all(re.search(pattern, text) for text in found)


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)a",
        "^(?=a)ab|c",
        "^(?=a)?b",
        "^(?=a){0,1}b",
        "^(?!ab)a",
        "^(?!aa)a",
        "^(?!.*ab)a",
        "^(?!.)a",
        r"^(?!.*\d)a",
        "^(?![ab]+$)a",
        "^(?![^]*$)a",
        r"^(?![\w]*$)a",
        "^(?!a|[b]*$)a",
        "^(?=a",
        "a(?=b)",
        r"^[+-]?0*(?:\d{0,3}|(?=[\d.]{1,5}0*$)\d{0,3}\.\d{0,2}0*$)",
        r"\^(?=a)",
    ],
)
def test_look_ahead_of_other_kinds_stays(pattern: str) -> None:
    assert split_pattern(pattern) == [pattern]


def test_other_patterns_stay_as_they_are() -> None:
    for pattern in ("^a$", "a|b", r"^\(?=a", "^[(?=]a)$", "^(?:a)b", "^(a)b"):
        assert split_pattern(pattern) == [pattern]


def test_a_schema_with_them_is_followed_and_others_are_named() -> None:
    both = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": DECIMAL}]}
    grammar = compiled(json=both)
    for text in ("1.5", '"-1.50"', '".5"'):
        assert follows(grammar, text)
    for text in ('"-"', '""', '"abc"', '"1.5.1"'):
        assert not follows(grammar, text)
    duration = {"type": "string", "format": "duration", "pattern": DURATION}
    grammar = compiled(json=duration)
    assert follows(grammar, '"P1DT2H"') and not follows(grammar, '"P1W1D"')
    email = {"type": "string", "format": "email", "pattern": EMAIL}
    grammar = compiled(json=email)
    assert follows(grammar, '"a.b@c.de"') and not follows(grammar, '"a..b@c.de"')
    for pattern in ("(?=a)a", r"^\bab$", "^" + "a" * 500 + "(?<!b)"):
        with pytest.raises(ValueError, match="#/items: a pattern has look-around, such as"):
            compiled(json={"type": "array", "items": {"type": "string", "pattern": pattern}})
