"""What llguidance says is wrong, in our words, and of a schema also where.

It names no places. So parts of the schema are compiled alone until no part of the part fails: only
of schemas that are refused. Knows neither vocabularies nor limits.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from quire.structured import GrammarSpec
from quire.structured_outputs import keywords

MatcherOf = Callable[[Any], Any]  # from a schema to the library's matcher
# Of a schema that are compiled to find the one, and for how long: others wait to be tried out.
MAX_PARTS, MAX_S = 100, 1.0

_PICTURE = re.compile(r"\s\d+ \| |<state>|<non-verbose/>")
_PLACE = re.compile(r"^(?:at |Parser Error: |\d+\(\d+\): |failed to compile JSON schema: )+")
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
    ("fuel exhausted", "it needs too much work; make it simpler"),
)
_ELSEWHERE = re.compile(r'"\$ref": "(?!#/(?:\$defs|definitions)/)')


def reason_of(matcher: Any) -> str:
    """Of a matcher that has an error: without the library's picture of the place."""
    said = " ".join(_PICTURE.split(matcher.get_error())[0].split())
    said = _PLACE.sub("", said)[:400]
    return next((ours for theirs, ours in _OTHER_WORDS if theirs in said), said)


def with_place(reason: str, spec: GrammarSpec, matcher_of: MatcherOf) -> str:
    """The reason, and in a JSON schema the smallest part that fails by itself before it."""
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
    for path, part in keywords.schemas_in(schema):
        if isinstance(part, Mapping):
            yield path, part


def _failure(
    part: Mapping[str, Any], roots: Mapping[str, Any], matcher_of: MatcherOf
) -> str | None:
    """None also where a reference is to a part that is not with it, or where it can be followed
    only with what is around it."""
    if _ELSEWHERE.search(json.dumps(part)):
        return None
    try:
        matcher = matcher_of({**roots, **part})
    except ValueError:
        return None
    return reason_of(matcher) if matcher.is_error() else None
