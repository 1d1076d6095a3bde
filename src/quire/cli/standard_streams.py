"""Standard input, output and error that are there, whatever the program was started with."""

from __future__ import annotations

import os
import sys
from typing import Literal, TextIO


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


def _null(mode: Literal["r", "w"]) -> TextIO:
    return open(os.devnull, mode)
