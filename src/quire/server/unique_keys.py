"""Objects of JSON whose keys are unique. Knows nothing about requests."""

from __future__ import annotations

from collections import Counter
from typing import Any

_MAX_SHOWN = 80  # characters of a key in a message


class RepeatedKey(ValueError):
    """A key stands twice in one object; says which, after a subject."""


def unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An ``object_pairs_hook`` that refuses a repeated key, of which one value would be ignored."""
    content = dict(pairs)
    if len(content) == len(pairs):
        return content
    counts = Counter(key for key, _ in pairs)
    key = next(key for key, count in counts.items() if count > 1)
    raise RepeatedKey(
        f"has the key {key[:_MAX_SHOWN]!r} {counts[key]} times in one object; send it once"
    )
