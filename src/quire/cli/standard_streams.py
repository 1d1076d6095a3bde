"""Standard input, output and error that are there and take any text, whatever the program was
started with."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Literal, TextIO

_REFUSING = frozenset({"strict", "surrogateescape"})  # what Python chooses by itself


def open_standard_streams() -> None:
    """Those that are closed become /dev/null. Otherwise the next file or socket would get one of
    their descriptors, and Python has no stream at all for them."""
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
    """Where the locale has no such character it is shown as an escape; errors are so already."""
    if not isinstance(stream, io.TextIOWrapper) or stream.errors not in _REFUSING:
        return
    if codecs.lookup(stream.encoding).name != "utf-8":
        stream.reconfigure(errors="backslashreplace")


def _null(mode: Literal["r", "w"]) -> TextIO:
    return open(os.devnull, mode)
