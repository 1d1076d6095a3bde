"""Writes JSON whose numbers llguidance reads exactly.

Its reader takes the digits as one integer and divides once by a power of ten, so numbers of 16 or
more digits, or very small ones, may be read as a neighbour. Most of them have other digits that are
read right. Knows no schemas.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

_LARGEST_POWER = 308  # of ten
_END_OF_DIGITS = 1 << 64


def dumps(value: Any) -> str:
    """The value as JSON; ``ValueError`` for a number for which there are no such digits."""
    match value:
        case float():
            return _text_of(value)
        case Mapping():
            return "{" + ", ".join(f"{json.dumps(k)}: {dumps(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(dumps, value)) + "]"
    return json.dumps(value)


def is_exact(value: float) -> bool:
    """Whether there are digits that are read as this number."""
    return isinstance(value, int) or next(_texts(abs(value)), None) is not None


def _text_of(value: float) -> str:
    text = next(_texts(abs(value)), None)
    if text is None:
        raise ValueError(
            f"JSON schema: the number {value!r} is not read exactly by the compiler of grammars; "
            "write it with at most 15 digits."
        )
    return f"-{text}" if value < 0 else text


def _texts(value: float) -> Iterator[str]:
    """Texts that are read as this number, which is not negative: the usual one first."""
    usual = repr(value)
    digits, _, exponent = usual.partition("e")
    whole, _, fraction = digits.partition(".")
    if _read(float(whole + fraction), int(exponent or 0) - len(fraction)) == value:
        yield usual
        return
    num_places = -math.floor(math.log10(value))  # before its first digit
    for places in range(num_places + 18, num_places - 9, -1):
        near = _read(value, places)
        for one in (near, math.nextafter(near, 0), math.nextafter(near, math.inf)):
            is_whole = one.is_integer() and one < _END_OF_DIGITS
            if is_whole and _read(one, -places) == value:
                yield f"{int(one)}e{-places}"


def _read(digits: float, exponent: int) -> float:
    """The number that the reader computes from its digits and exponent, step by step."""
    while exponent < -_LARGEST_POWER:
        digits, exponent = digits / float(f"1e{_LARGEST_POWER}"), exponent + _LARGEST_POWER
    power = float(f"1e{abs(exponent)}")
    return digits * power if exponent >= 0 else digits / power
