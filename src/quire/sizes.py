"""Numbers with units as people write them: ``8k`` tokens, ``4GiB``, ``4G``. Knows nothing else."""

from __future__ import annotations

import math
import re

_BYTES = {"b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_BYTES |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
# Lower case counts thousands and upper case powers of two: a context of 8K is 8,192 tokens, a cache
# of 4G is 4 GiB.
_COUNTS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_COUNTS |= {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_bytes(value: float | str) -> int:
    """``4GiB``, ``500 MB``, ``4G`` (4 GiB), ``4g`` (4 GB) or a plain number of bytes."""
    if not isinstance(value, str):
        return _whole(value, value)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", value.strip())
    unit = match[2] or "b" if match else ""
    factor = _COUNTS.get(unit) or _BYTES.get(unit.lower())
    if match is None or factor is None:
        raise ValueError(f"{value!r} is not a size; write bytes or a unit, such as 4GiB or 500MB")
    return round(float(match[1]) * factor)


def parse_memory(value: float | str) -> int:
    """As `parse_bytes`, for a device's memory: refuses values too small to hold a model."""
    num_bytes = parse_bytes(value)
    if num_bytes < 2**20:
        raise ValueError(
            f"{value} is {num_bytes} bytes, too few for a model"
            f"{unit_hint(num_bytes) or '; give a unit, such as 24GiB'}"
        )
    return num_bytes


def unit_hint(num_bytes: int) -> str:
    """A suffix for an error message if a number of bytes looks like one of GiB; else empty."""
    return f"; did you mean {num_bytes}GiB?" if 0 < num_bytes <= 1024 else ""


def parse_count(value: float | str) -> int:
    """``4096``, ``8k`` (8,000), ``8K`` (8,192), ``25.6k`` or ``1M``."""
    if not isinstance(value, str):
        return _whole(value, value)
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*([a-zA-Z]?)", value.strip())
    if match is None or (match[2] and match[2] not in _COUNTS):
        raise ValueError(f"{value!r} is not a count; write a number such as 4096, 8k or 1M")
    return _whole(float(match[1]) * _COUNTS.get(match[2], 1), value)


def format_bytes(count: float) -> str:
    """Three significant digits with a binary unit: ``1.50 GiB``."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    index = 0
    while abs(count) >= 1000 and index < len(units) - 1:
        count, index = count / 1024, index + 1
    if index == 0:
        return f"{count:.0f} B"
    digits = 2 if abs(count) < 10 else 1 if abs(count) < 100 else 0
    return f"{count:.{digits}f} {units[index]}"


def rounded_up(num_bytes: int) -> str:
    """A size of few digits that is enough when a user gives it."""
    size = num_bytes
    while parse_bytes(format_bytes(size)) < num_bytes:
        size += num_bytes // 1000 + 1
    return format_bytes(size)


def rounded_down(num_bytes: int) -> str:
    """A size of few digits that is not too large when a user gives it."""
    size = num_bytes
    while parse_bytes(format_bytes(size)) > num_bytes:
        size -= num_bytes // 1000 + 1
    return format_bytes(size)


def _whole(number: float, said: object) -> int:
    """``number`` as an int; ``said`` is the user's spelling, for the error."""
    if not math.isfinite(number) or not math.isclose(number, round(number)):
        raise ValueError(f"{said!r} is not a whole number")
    return round(number)
