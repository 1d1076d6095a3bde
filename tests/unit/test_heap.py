"""What exists is out of the garbage collector's sight, for as long as was said."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from quire.heap import keep_all_that_exists, unwatched_heap


class Ring:
    """Garbage that only a collection frees."""

    def __init__(self) -> None:
        self.itself = self


def ring() -> weakref.ref[Ring]:
    return weakref.ref(Ring())


@pytest.fixture(autouse=True)
def _thawed_again() -> Iterator[None]:
    before = gc.get_threshold()
    gc.disable()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)
    gc.enable()


def test_old_objects_are_not_looked_at_and_new_ones_are() -> None:
    old = ring()
    with unwatched_heap():
        new = ring()
        gc.collect()
        assert old() is not None and new() is None
    gc.collect()
    assert old() is None


def test_one_inside_another_and_one_of_the_programs_own_change_nothing() -> None:
    old = ring()
    with unwatched_heap():
        with unwatched_heap():
            pass
        gc.collect()
        assert old() is not None
    gc.freeze()
    with unwatched_heap():
        pass
    assert gc.get_freeze_count() > 0


def test_what_python_itself_froze_is_no_freeze_of_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 375)  # as in Python 3.12
    old = ring()
    with unwatched_heap():
        gc.collect()
        assert old() is not None


def test_garbage_is_not_kept() -> None:
    old, kept = ring(), [Ring()]
    keep_all_that_exists()
    assert old() is None and kept
    assert gc.get_freeze_count() > 0


@pytest.mark.parametrize(
    ("own", "meanwhile"),
    [
        ((700, 9, 1), (100_000, 9, 1)),
        ((5_000, 50, 100), (100_000, 50, 100)),
        ((500_000, 9, 8), (500_000, 9, 8)),
        ((0, 9, 8), (0, 9, 8)),
    ],
)
def test_collections_of_new_objects_are_rarer_unless_the_program_has_made_them_so(
    own: tuple[int, int, int], meanwhile: tuple[int, int, int]
) -> None:
    gc.set_threshold(*own)
    with unwatched_heap():
        assert gc.get_threshold() == meanwhile
    assert gc.get_threshold() == own


def test_in_a_process_of_ours_older_objects_are_looked_at_sooner() -> None:
    gc.set_threshold(700, 9, 1)
    keep_all_that_exists()
    assert gc.get_threshold() == (100_000, 2, 1)
