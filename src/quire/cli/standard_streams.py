"""Makes sure that standard input, output and error are open and that output takes any text."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Literal, TextIO

_REFUSING = frozenset({"strict", "surrogateescape"})  # what Python chooses by itself


def open_standard_streams() -> None:
    """Open closed standard streams on /dev/null. Otherwise the next file or socket would get one of
    their descriptors, and Python's stream object would be None."""
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


def _take_any_text(stream: TextIO) -> None:
    """Write characters that the locale lacks as escapes, as Python does on standard error."""
    if not isinstance(stream, io.TextIOWrapper) or stream.errors not in _REFUSING:
        return
    if codecs.lookup(stream.encoding).name != "utf-8":
        stream.reconfigure(errors="backslashreplace")


def _null(mode: Literal["r", "w"]) -> TextIO:
    return open(os.devnull, mode)
