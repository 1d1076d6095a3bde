"""Standard input, output and error: opens closed ones, and writes to those that may fail.

Knows nothing about what is written.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from typing import Literal, TextIO

_REFUSING = frozenset({"strict", "surrogateescape"})  # what Python chooses by itself


def open_standard_streams() -> None:
    """Open closed standard streams on /dev/null. Otherwise the next file or socket would get one of
    their descriptors, and Python's stream object would be None. Output then takes any text."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free
            assert opened == descriptor, (opened, descriptor)
            os.set_inheritable(descriptor, True)
    if sys.stdin is None:
        sys.stdin = _null("r")
    if sys.stdout is None:
        sys.stdout = _null("w")
    if sys.stderr is None:
        sys.stderr = _null("w")
    _take_any_text(sys.stdout)


def has_onlooker() -> bool:
    """Whether stderr is a terminal or a notebook, whose stream is no terminal. A program may have
    put anything in its place, None and objects that can only write included."""
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no such method, or closed
        if sys.stderr.isatty():
            return True
    return type(sys.stderr).__module__.startswith("ipykernel.")


class Stderr:
    """Writes to whatever ``sys.stderr`` is at that moment, so that redirections are honoured. What
    that cannot take, as for a full disk or a closed pipe, is lost."""

    @property
    def encoding(self) -> str:
        return getattr(sys.stderr, "encoding", None) or "ascii"

    def write(self, text: str) -> int:
        with contextlib.suppress(AttributeError, OSError, ValueError):  # may be closed, or None
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stderr.flush()

    def fileno(self) -> int:
        """The descriptor, for a progress bar that asks how wide the terminal is."""
        return sys.stderr.fileno()


def _take_any_text(stream: TextIO) -> None:
    """Write characters that the locale lacks as escapes, as Python does on standard error."""
    if not isinstance(stream, io.TextIOWrapper) or stream.errors not in _REFUSING:
        return
    if codecs.lookup(stream.encoding).name != "utf-8":
        stream.reconfigure(errors="backslashreplace")


def _null(mode: Literal["r", "w"]) -> TextIO:
    return open(os.devnull, mode)
