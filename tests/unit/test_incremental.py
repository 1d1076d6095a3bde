from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.incremental import (
    Events,
    Marks,
    Reading,
    Source,
    Steps,
    peek,
    released,
    seek,
    streamed,
)


def words(source: Source, found: list[str], marks: Marks) -> Steps[None]:
    """Texts and the marks between them."""
    texts: list[str] = []
    while mark := (yield from marks.find(source, texts.append)):
        found += ["".join(texts), mark]
        texts.clear()
        source.pos += len(mark)
        source.release()
    found.append("".join(texts))


def read(text: str, places: list[int], marks: Marks) -> list[str]:
    found: list[str] = []
    reading = Reading(lambda source: words(source, found, marks))
    ends = sorted({min(place, len(text)) for place in places})
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        reading.add(text[start:end])
    reading.end()
    return found


@given(text=st.text("ab<>/c", max_size=30), places=st.lists(st.integers(0, 30), max_size=20))
def test_marks_are_found_wherever_the_text_is_cut(text: str, places: list[int]) -> None:
    """One of these begins with another, and one holds another."""
    marks = Marks(["<a", "<ab>", "b<", "</"])
    found = read(text, places, marks)
    assert "".join(found) == text
    assert found == read(text, [], marks)


def test_of_two_marks_at_one_place_the_longer_is_found() -> None:
    marks = Marks(["<a", "<ab>"])
    assert read("x<ab>y<abz", list(range(10)), marks) == ["x", "<ab>", "y", "<a", "bz"]


def test_text_that_may_begin_a_mark_is_held_and_all_other_is_not() -> None:
    found: list[str] = []
    source = Source()
    steps = Marks(["</tool>"]).find(source, found.append)
    for piece, told in (("1 < 2 ", "1 < 2 "), ("</to", ""), ("ad", "</toad")):
        found.clear()
        source.add(piece)
        next(steps)
        assert "".join(found) == told


def test_what_is_passed_is_emitted_as_it_comes() -> None:
    found: list[str] = []
    source = Source()
    steps = streamed(source, seek(source, re.compile(r"\W")), found.append)
    source.add("ab")
    next(steps)
    source.add("cd!")
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert (found, source.pos) == (["ab", "cd"], 4)
    assert end.value.value == "!"


def test_texts_of_one_kind_become_one_event() -> None:
    found: Events[str | int] = Events()
    for text in ("a", "", "b"):
        found.add(str.upper, text)
    found.add(str.lower, "C")
    found.put(3)
    found.add(str.lower, "D")
    assert found.taken() == ["AB", "c", 3, "d"]
    found.add(str.lower, "E")
    assert found.taken() == ["e"] and found.taken() == []


def test_what_is_released_is_not_kept() -> None:
    sizes: list[int] = []

    def grammar(source: Source) -> Steps[None]:
        yield from Marks(["|"]).find(
            source, released(source, lambda _: sizes.append(len(source.between(0, source.end))))
        )

    reading = Reading(grammar)
    for _ in range(1000):
        reading.add("abcd")
    reading.end()
    assert max(sizes) <= 8


def test_a_grammar_that_waits_for_more_than_all_is_found_out() -> None:
    def endless(source: Source) -> Steps[None]:
        while not (yield from peek(source)) or True:
            yield

    reading = Reading(endless)
    with pytest.raises(AssertionError, match="waits for text after the end"):
        reading.end()
