"""What the garbage collector looks at, and how often, and that a program gets its own back."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from quire.heap import keep_all_that_exists, rare_collections, unwatched_heap

DEFAULT = (700, 10, 10)


class Ring:
    """Garbage that only a collection frees."""

    def __init__(self) -> None:
        self.itself = self


def ring() -> weakref.ref[Ring]:
    return weakref.ref(Ring())


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
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
        ((700, 9, 1), (10_000, 9, 1)),
        ((5_000, 50, 100), (10_000, 50, 100)),
        ((500_000, 9, 8), (500_000, 9, 8)),
        ((0, 9, 8), (0, 9, 8)),
    ],
)
def test_collections_of_new_objects_are_rarer_unless_the_program_has_made_them_so(
    own: tuple[int, int, int], meanwhile: tuple[int, int, int]
) -> None:
    gc.set_threshold(*own)
    with rare_collections():
        assert gc.get_threshold() == meanwhile
    assert gc.get_threshold() == own


def test_calls_of_several_threads_end_in_any_order() -> None:
    gc.set_threshold(*DEFAULT)
    has_begun, may_end = threading.Event(), threading.Event()

    def call() -> None:
        with rare_collections():
            has_begun.set()
            may_end.wait()

    other = threading.Thread(target=call)
    with rare_collections():
        other.start()
        has_begun.wait()
    assert gc.get_threshold() == (10_000, 10, 10), "the other call goes on"
    may_end.set()
    other.join()
    assert gc.get_threshold() == DEFAULT


def test_what_the_program_sets_meanwhile_stays() -> None:
    gc.set_threshold(*DEFAULT)
    with rare_collections():
        gc.set_threshold(1234, 7, 7)
    assert gc.get_threshold() == (1234, 7, 7)


def test_garbage_of_a_program_that_calls_again_and_again_is_collected() -> None:
    gc.set_threshold(*DEFAULT)
    held = Ring()
    garbage = weakref.ref(held)
    gc.collect(0)  # it is no young object any more
    del held
    gc.enable()
    for _ in range(100):
        with rare_collections():
            pass
        made = [[number] for number in range(1000)]
        if garbage() is None:
            break
    assert garbage() is None and made


def test_in_a_process_of_ours_older_objects_are_looked_at_sooner() -> None:
    gc.set_threshold(700, 9, 1)
    keep_all_that_exists()
    assert gc.get_threshold() == (100_000, 2, 1)
