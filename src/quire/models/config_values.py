"""Type checks of config.json values. Knows no keys."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any


def is_a(wanted: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, wanted)


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


def is_fraction(value: Any) -> bool:
    return is_number(value) and 0 <= value < 1


def is_at_least(limit: float) -> Callable[[Any], bool]:
    return lambda value: is_number(value) and value >= limit


def is_above(limit: float) -> Callable[[Any], bool]:
    return lambda value: is_number(value) and value > limit


def is_list_of(is_item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_item, value))
