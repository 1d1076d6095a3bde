"""Signal handlers wait for the end of a block, and none is lost or called twice."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from signal import SIGALRM, SIGINT, SIGTERM, SIGUSR1, SIGUSR2
from types import FrameType

import pytest

from quire.engine import held_signals
from quire.engine.held_signals import HeldSignals

USED = (SIGINT, SIGALRM, SIGTERM, SIGUSR1, SIGUSR2)
ERRORS = {SIGALRM: TimeoutError, SIGTERM: SystemExit, SIGINT: KeyboardInterrupt}


@pytest.fixture
def called() -> Iterator[list[int]]:
    """The signals whose handlers were called; the handlers of some raise."""
    before = {number: signal.getsignal(number) for number in USED}
    numbers: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        numbers.append(number)
        if number in ERRORS:
            raise ERRORS[signal.Signals(number)]

    for number in USED:
        signal.signal(number, handler)
    yield numbers
    for number in USED:
        signal.signal(number, before[number])


def test_a_handler_is_called_at_the_end_with_its_own_arguments() -> None:
    arguments: list[tuple[int, FrameType | None]] = []

    def handler(number: int, frame: FrameType | None) -> None:
        arguments.append((number, frame))

    def interrupted() -> None:
        signal.raise_signal(SIGUSR1)

    before = signal.signal(SIGUSR1, handler)
    with HeldSignals():
        interrupted()
        assert not arguments
    ((number, frame),) = arguments
    assert number == SIGUSR1
    assert frame is not None and frame.f_code is interrupted.__code__
    assert signal.signal(SIGUSR1, before) is handler


def test_handlers_are_called_once_each_in_the_order_of_arrival(called: list[int]) -> None:
    with HeldSignals():
        for number in (SIGUSR2, SIGUSR1, SIGUSR2):
            signal.raise_signal(number)
    assert called == [SIGUSR2, SIGUSR1]


def test_a_handler_that_raises_loses_no_other(called: list[int]) -> None:
    numbers = [SIGALRM, SIGUSR1, SIGTERM, SIGINT, SIGUSR2]
    with pytest.raises(KeyboardInterrupt) as caught, HeldSignals():
        for number in numbers:
            signal.raise_signal(number)
    assert called == numbers
    exit_ = caught.value.__context__
    assert isinstance(exit_, SystemExit) and isinstance(exit_.__context__, TimeoutError)


def test_handlers_are_called_though_the_block_fails(called: list[int]) -> None:
    with pytest.raises(ValueError, match="its own"), HeldSignals():
        signal.raise_signal(SIGUSR1)
        raise ValueError("its own")
    with pytest.raises(TimeoutError) as caught, HeldSignals():
        signal.raise_signal(SIGALRM)
        raise ValueError("its own")
    assert isinstance(caught.value.__context__, ValueError)
    assert called == [SIGUSR1, SIGALRM]


def test_a_second_ctrl_c_goes_through(called: list[int]) -> None:
    with pytest.raises(KeyboardInterrupt), HeldSignals():
        signal.raise_signal(SIGUSR1)
        signal.raise_signal(SIGINT)
        assert not called
        signal.raise_signal(SIGINT)
        called.append(0)
    assert called == [SIGUSR1, SIGINT]


@pytest.mark.usefixtures("called")
def test_a_handler_that_counts_presses_gets_both() -> None:
    presses: list[int] = []

    def count(number: int, frame: FrameType | None) -> None:
        presses.append(number)
        if len(presses) == 2:
            raise KeyboardInterrupt

    signal.signal(SIGINT, count)
    with pytest.raises(KeyboardInterrupt), HeldSignals():
        signal.raise_signal(SIGINT)
        signal.raise_signal(SIGINT)
        raise AssertionError("the second press ends the block")
    assert presses == [SIGINT, SIGINT]


def test_a_block_that_is_kept_as_a_handler_is_held_by_the_next(called: list[int]) -> None:
    with HeldSignals():
        kept = signal.signal(SIGUSR1, signal.SIG_IGN)
    signal.signal(SIGUSR1, kept)
    with HeldSignals():
        signal.raise_signal(SIGUSR1)
        assert not called
    assert called == [SIGUSR1]


def test_a_block_that_never_ends_is_interrupted(
    called: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_signals, "LONGEST_HOLD_S", 0.0)
    swallowed: list[Exception] = []
    handler = signal.getsignal(SIGALRM)
    with pytest.raises(TimeoutError), HeldSignals():
        while True:
            try:
                signal.raise_signal(SIGALRM)
                time.sleep(60)
            except Exception as error:
                swallowed.append(error)
    assert (called, swallowed) == ([SIGALRM], [])
    assert signal.getsignal(SIGALRM) is handler


def test_nested_blocks_that_never_end_are_interrupted(
    called: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_signals, "LONGEST_HOLD_S", 0.0)
    with pytest.raises(TimeoutError), HeldSignals():
        try:
            with HeldSignals():
                signal.raise_signal(SIGALRM)
                while True:
                    time.sleep(0.01)
        except Exception:
            called.append(0)
    assert called == [SIGALRM]


def test_the_outermost_block_calls_the_handlers(called: list[int]) -> None:
    with HeldSignals():
        with HeldSignals():
            signal.raise_signal(SIGUSR1)
        assert not called
    assert called == [SIGUSR1]
    with pytest.raises(KeyboardInterrupt), HeldSignals(), HeldSignals():
        signal.raise_signal(SIGINT)
        signal.raise_signal(SIGINT)
        called.append(0)
    assert called == [SIGUSR1, SIGINT]


def test_what_has_no_handler_in_python_is_left_alone(called: list[int]) -> None:
    signal.signal(SIGUSR1, signal.SIG_DFL)
    signal.signal(SIGUSR2, signal.SIG_IGN)
    with HeldSignals():
        assert signal.getsignal(SIGUSR1) is signal.SIG_DFL
        signal.raise_signal(SIGUSR2)
        assert signal.getsignal(SIGUSR2) is signal.SIG_IGN


def test_a_handler_that_is_set_inside_the_block_stays(called: list[int]) -> None:
    def other(number: int, frame: FrameType | None) -> None:
        called.append(-number)

    with HeldSignals():
        signal.raise_signal(SIGUSR1)
        signal.signal(SIGUSR1, other)
        signal.raise_signal(SIGUSR1)
        signal.signal(SIGUSR2, signal.SIG_DFL)
    assert called == [-SIGUSR1, SIGUSR1]
    assert signal.getsignal(SIGUSR1) is other
    assert signal.getsignal(SIGUSR2) is signal.SIG_DFL


def test_a_handler_may_set_handlers() -> None:
    def once(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)

    before = signal.signal(SIGUSR1, once)
    with HeldSignals():
        signal.raise_signal(SIGUSR1)
    assert signal.signal(SIGUSR1, before) is signal.SIG_IGN


def test_what_code_in_the_block_kept_still_reaches_the_handler(called: list[int]) -> None:
    with HeldSignals():
        kept = signal.signal(SIGUSR1, signal.SIG_IGN)
    signal.signal(SIGUSR1, kept)
    signal.raise_signal(SIGUSR1)
    assert called == [SIGUSR1]


def test_a_handler_that_raises_as_the_block_begins_leaves_none_behind(
    called: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, real = signal.getsignal(SIGUSR1), held_signals._signal.signal

    def interrupted(number: int, given: object) -> object:
        if number == SIGUSR1:
            signal.raise_signal(SIGALRM)
            raise ValueError
        return real(number, given)

    with monkeypatch.context() as patch, pytest.raises(TimeoutError):
        patch.setattr(held_signals._signal, "signal", interrupted)
        with HeldSignals():
            called.append(0)
    assert called == [SIGALRM]
    assert {signal.getsignal(number) for number in USED} == {handler}


def test_other_threads_hold_nothing(called: list[int]) -> None:
    handlers: list[object] = []

    def use() -> None:
        with HeldSignals():
            handlers.append(signal.getsignal(SIGINT))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(SIGINT)]
