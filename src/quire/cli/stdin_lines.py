"""Standard input as lines of text, one at a time. Knows nothing about what they are for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO


def lines_of(stream: TextIO) -> Iterator[str]:
    """Lines without their ends; a ``ValueError`` names the first that is not UTF-8.

    Bytes are decoded here, since a text stream decodes many lines at once and cannot say which.
    """
    for number, line in enumerate(stream.buffer, start=1):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{name_of_line(number)} is not UTF-8 (byte 0x{line[error.start]:02x} at "
                f"{error.start + 1}); convert the text, for example with iconv"
            ) from None


def name_of_line(number: int) -> str:
    """How messages call a line, counted from 1."""
    return f"line {number} of standard input"
