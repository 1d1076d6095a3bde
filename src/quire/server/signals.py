"""The signals that end a server, and what they do while it cannot drain yet.

Imports nothing of Quire, so that it can be imported before everything else.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from types import FrameType

_STATUS = 128  # plus the signal's number: what shells report


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that start a drain; without SIGHUP if that is ignored, as under `nohup`."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return (signal.SIGINT, signal.SIGTERM)
    return (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _End:
    """A handler that ends the process, and remembers that it was called."""

    def __init__(self, end: Callable[[int], object]) -> None:
        self._end = end
        self.was_called = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.was_called = True
        self._end(_STATUS + number)


def end_at_signals(end: Callable[[int], object]) -> None:
    """Call ``end`` with the exit status at a signal, until other handlers are set. Without handlers
    the first process of a container ignores signals. SIGINT keeps Python's own handler."""
    handler = _End(end)
    for number in stop_signals():
        if number != signal.SIGINT:
            signal.signal(number, handler)


def hand_over(
    numbers: Sequence[signal.Signals], set_handler: Callable[[signal.Signals], object]
) -> bool:
    """Set other handlers. True if a signal came before and the exception that should have ended the
    process was lost, as happens to those raised in a destructor."""
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        set_handler(number)
    return any(isinstance(handler, _End) and handler.was_called for handler in before)


def ignore_stop_signals() -> None:
    """Ignore the signals, in a process that another one stops."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
