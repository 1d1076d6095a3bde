"""Stop strings are found at the same place however the text is cut."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from quire.engine.stop_strings import StopChecker

TEXT = st.text(alphabet="abc", max_size=30)
STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1, max_size=3)


def run(pieces: list[str], stop: list[str], include: bool) -> tuple[str, str | None]:
    checker = StopChecker(stop, include)
    text = ""
    for piece in pieces:
        certain, found = checker.feed(piece)
        text += certain
        if found is not None:
            return text, found
    return text + checker.finish(), None


def reference(text: str, stop: list[str], include: bool) -> tuple[str, str | None]:
    """The shortest beginning of the text that ends with a stop string."""
    for end in range(1, len(text) + 1):
        found = [one for one in stop if text[:end].endswith(one)]
        if found:
            longest = max(found, key=len)
            return text[:end] if include else text[: end - len(longest)], longest
    return text, None


@settings(max_examples=300, deadline=None)
@given(text=TEXT, stop=STOPS, include=st.booleans(), cuts=st.lists(st.integers(0, 30)))
def test_result_does_not_depend_on_the_cuts(
    text: str, stop: list[str], include: bool, cuts: list[int]
) -> None:
    edges = [0, *sorted(cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert run(pieces, stop, include) == reference(text, stop, include)


@settings(max_examples=300, deadline=None)
@given(before=TEXT, text=TEXT, stop=STOPS, include=st.booleans())
def test_what_was_passed_by_holds_beginnings_only(
    before: str, text: str, stop: list[str], include: bool
) -> None:
    checker = StopChecker(stop, include)
    shown = checker.pass_by(before)
    certain, found = checker.feed(text)
    both = before + text
    places = [(i, one) for one in stop for i in range(len(both)) if both[i:].startswith(one)]
    ends = [(i + len(one), i, one) for i, one in places if i + len(one) > len(before)]
    if not ends:
        assert (shown + certain + checker.finish(), found) == (both, None)
        return
    end, start, expected = min(ends)
    assert (shown + certain, found) == (both[: end if include else start], expected)


def test_only_a_possible_beginning_is_held_back() -> None:
    checker = StopChecker(["</end>"])
    assert checker.feed("text <") == ("text ", None)
    assert checker.feed("/e") == ("", None)
    assert checker.feed("xit") == ("</exit", None)
    assert checker.feed("a</end") == ("a", None)
    assert checker.finish() == "</end"
