"""OpenAPI's formats of numbers as patterns for strings that hold such numbers: APIs write 64-bit
integers so. Knows no schemas.
"""

from __future__ import annotations

_DIGIT = "[0-9]"


def _up_to(most: int) -> str:
    """A pattern for 1 to ``most``, without leading zeros."""
    digits = str(most)
    alternatives = [digits]
    for i, digit in enumerate(digits):  # numbers that are smaller first in this digit
        least = 1 if i == 0 else 0
        if int(digit) > least:
            rest = len(digits) - i - 1
            alternatives.append(f"{digits[:i]}[{least}-{int(digit) - 1}]{_DIGIT}{{{rest}}}")
    if len(digits) > 1:
        alternatives.append(f"[1-9]{_DIGIT}{{0,{len(digits) - 2}}}")
    return "|".join(alternatives)


def _integer(low: int, high: int) -> str:
    negative = f"|-(?:{_up_to(-low)})" if low < 0 else ""
    return f"^(?:0|{_up_to(high)}{negative})$"


def _decimal(max_digits: int | None = None) -> str:
    """A pattern for decimals with at most ``max_digits`` digits before the point."""
    more = "*" if max_digits is None else f"{{0,{max_digits - 1}}}"
    return rf"^-?(?:0|[1-9]{_DIGIT}{more})(?:\.{_DIGIT}+)?$"


_BITS = (8, 16, 32, 64)
_SIGNED = {bits: _integer(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in _BITS}
_UNSIGNED = {bits: _integer(0, 2**bits - 1) for bits in _BITS}
NUMBER_PATTERNS = {
    **{f"int{bits}": _SIGNED[bits] for bits in _BITS},
    **{f"uint{bits}": _UNSIGNED[bits] for bits in _BITS},
    "int": _SIGNED[64],
    "uint": _UNSIGNED[64],
    "float": _decimal(38),  # all that are written so are in its range
    "double": _decimal(308),
    "decimal": _decimal(),
}
