"""How much of a wrong value a message quotes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from quire.shown import shown


@pytest.mark.parametrize(
    "value", [None, 1.5, "a'b", [], {}, [1, "x", [None]], {"a": {"b": [True]}, "c": "\n"}]
)
def test_a_wrong_value_is_shown_as_python_writes_it(value: Any) -> None:
    assert shown(value, 100) == repr(value)


def test_a_long_value_is_cut() -> None:
    assert shown("x" * 100, 10) == "'xxxxxx..."
    assert shown({"x" * 100: 1}, 10) == "{'xxxxx..."


def test_of_a_large_value_only_the_beginning_is_looked_at() -> None:
    class Endless(list[int]):
        def __iter__(self) -> Iterator[int]:
            return itertools.count()

    assert shown(Endless(), 10) == "[0, 1, ..."
    assert shown({"a": Endless()}, 14) == "{'a': [0, 1..."
