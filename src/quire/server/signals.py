"""The signals that end a server, and what they do while it cannot drain yet.

Imports nothing of Quire: it is there before everything else.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

_STATUS = 128  # plus the signal's number: what shells report


def stop_signals() -> tuple[signal.Signals, ...]:
    """All of them drain. Under `nohup` the end of the terminal is ignored, and stays so."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return (signal.SIGINT, signal.SIGTERM)
    return (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_at_signals(end: Callable[[int], object]) -> None:
    """Call ``end`` with the exit status, until other handlers are set. Without handlers the first
    process of a container would not be told of signals at all. Ctrl-C is Python's own already."""

    def handle(number: int, frame: FrameType | None) -> None:
        end(_STATUS + number)

    for number in stop_signals():
        if number != signal.SIGINT:
            signal.signal(number, handle)


def ignore_stop_signals() -> None:
    """In a process whose end is another one's business."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
