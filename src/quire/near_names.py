"""Suggests known names for a mistyped one, only if they are close."""

from __future__ import annotations

import difflib
from collections.abc import Collection

CUTOFF = 0.72  # share of letters in common and in order; 0.5 is common by chance


def nearest(name: str, known: Collection[str], most: int = 2, cutoff: float = CUTOFF) -> list[str]:
    """The nearest of ``known``, best first; dashes in front, underscores and case do not count."""
    by_core = {_core(one): one for one in sorted(known)}
    near = difflib.get_close_matches(_core(name), by_core, n=most, cutoff=cutoff)
    return [by_core[core] for core in near]


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The end of an error line: a suggestion, or nothing."""
    near = nearest(name, known)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _core(name: str) -> str:
    return name.lstrip("-").replace("_", "-").lower()
