"""Rewords llguidance's errors, and finds their place in a JSON schema; says why a text is stuck.

The library names no places. So the parts of a refused schema are compiled alone, down to the
smallest that fails. Knows neither vocabularies nor limits.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from quire.structured import GrammarSpec
from quire.structured_outputs import schema_walk

MatcherOf = Callable[[Any], Any]  # from a schema to the library's matcher
# How many parts of a schema are compiled to find the one, and for how long: other grammars wait.
MAX_PARTS, MAX_S = 100, 1.0

_PICTURE = re.compile(r"\s\d+ \| |<state>|<non-verbose/>")
_PLACE = re.compile(r"^(?:at |Parser Error: |\d+\(\d+\): |failed to compile JSON schema: )+")
_LOOK_AROUND = (
    r"a pattern has look-around, such as (?!...) or \b, that cannot be honoured; write it without, "
    "or constrain the values otherwise"
)
_OTHER_WORDS = (
    (
        "min/maxProperties only supported",
        "minProperties and maxProperties can be followed only where all named properties are "
        "required, or where additionalProperties is false and type is object",
    ),
    (
        "Regex is empty",
        "Unsatisfiable schema: no text has all of its patterns, formats and lengths",
    ),
    ("look-around", _LOOK_AROUND),
    ("lookarounds", _LOOK_AROUND),
    ("fuel exhausted", "it needs too much work; make it simpler"),
)
# What a grammar does in which a text is stuck, whatever its backend says.
DEAD_END = (
    "comes to a place where no token may follow and the text may not end; let every rule have an "
    "end"
)
_NO_TOKEN = "NoExtension"  # llguidance's error when not even the end may be next
_ELSEWHERE = re.compile(r'"\$ref": "(?!#/(?:\$defs|definitions)/)')


def reason_of(matcher: Any) -> str:
    """The error of a matcher, without the library's drawing of the place."""
    said = " ".join(_PICTURE.split(matcher.get_error())[0].split())
    said = _PLACE.sub("", said)
    return next((ours for theirs, ours in _OTHER_WORDS if theirs in said), said[:400])


def why_stuck(reason: str) -> str:
    """What the grammar does, by the error of a matcher that followed it so far."""
    if _NO_TOKEN in reason:
        return DEAD_END
    return f"becomes too complex to follow: {reason}; make it simpler"


def with_place(reason: str, spec: GrammarSpec, matcher_of: MatcherOf) -> str:
    """The reason; for a JSON schema with the place of the smallest part that fails by itself."""
    if spec.kind != "json":
        return reason
    schema = json.loads(spec.source)
    if not isinstance(schema, dict):
        return reason
    place, left, ends_at = "#", MAX_PARTS, time.monotonic() + MAX_S
    roots = {word: schema[word] for word in ("$defs", "definitions") if word in schema}
    parts = _parts(schema)
    while left > 0 and time.monotonic() < ends_at and (part := next(parts, None)) is not None:
        left -= 1
        found = _failure(part[1], roots, matcher_of)
        if found is not None:
            place, reason, parts = f"{place}/{part[0]}", found, _parts(part[1])
    return f"{place}: {reason}"


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path, part in schema_walk.schemas_in(schema):
        if isinstance(part, Mapping):
            yield path, part


def _failure(
    part: Mapping[str, Any], roots: Mapping[str, Any], matcher_of: MatcherOf
) -> str | None:
    """Why the part fails by itself; None if it does not, or if it needs what is around it."""
    if _ELSEWHERE.search(json.dumps(part)):
        return None
    try:
        matcher = matcher_of({**roots, **part})
    except ValueError:
        return None
    return reason_of(matcher) if matcher.is_error() else None
