"""Narrows a checked JSON schema to what its author most likely means, never widens it.

* An object that names its properties, or gives patterns of their names, and does not mention
  others has no others, as with every other engine: a model that may make up names does. One that
  several schemas describe may have what each of them names, so all of these stay open (`parts.py`).
* Dates and times exist in the calendar, and host names keep their maximum length.
* Bounds beyond the integers that are exact are pulled in to those, and limits of lengths to what a
  grammar counts. A number that must be above 0 is 1e-20 at least: compilers write no exponents.

What compilers do not know is expressed by keywords that they do: alternatives that exclude each
other (`contradict.py`, `discriminators.py`), and how many properties there are (`counts.py`).

Whatever the narrowed schema admits, the given one admits too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quire.structured_outputs import keywords, schema_walk
from quire.structured_outputs.check import MAX_OPTIONAL
from quire.structured_outputs.contradict import Prover
from quire.structured_outputs.counts import count_properties, with_choice
from quire.structured_outputs.discriminators import with_tags_required
from quire.structured_outputs.exact_numbers import is_exact
from quire.structured_outputs.idle import without_idle
from quire.structured_outputs.parts import has_reference_into_parts, only_part, open_parts
from quire.structured_outputs.patterns import plain_escapes

_DROPPED = keywords.ANNOTATIONS | {"propertyNames"}  # the latter is expressed otherwise by then
_OF_NUMBERS = frozenset({"number", "integer"})
LEAST_ABOVE_0 = 1e-20
_MAX_STEPS = 8  # from a float to the next


def narrowed(schema: Any, *, closes_objects: bool = False, path: str = "#") -> Any:
    """The narrowed schema. ``closes_objects`` closes all objects, also where a schema combines
    others or allows more properties. ``ValueError`` names the place, from ``path`` on, of what no
    compiler can follow."""
    schema = without_idle(schema)
    tagged = with_tags_required(schema)
    narrower = _Narrower(
        open_ids=open_parts(tagged),
        forced=closes_objects,
        flattens=not has_reference_into_parts(tagged),
        prover=Prover(schema),
        root=schema,
    )
    return narrower.narrow(tagged, path, around=())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Narrower:
    open_ids: frozenset[int]  # schemas of objects that others describe too
    forced: bool  # closes all objects
    flattens: bool  # a part of allOf that is alone is put in its place
    prover: Prover
    root: Any

    def narrow(self, schema: Any, path: str, around: Sequence[Any]) -> Any:
        """Narrow one schema; the schemas ``around`` it apply to the same values."""
        if not isinstance(schema, Mapping):
            return schema
        alone = only_part(schema) if self.flattens else None
        if alone is not None:
            rest = {name: one for name, one in schema.items() if name != "allOf"}
            part = self.narrow(alone, f"{path}/allOf/0", around)
            return {**self.narrow(rest, path, around), **part}
        said: dict[str, Any] = {
            name: int(min(value, keywords.MAX_COUNT)) if name in keywords.COUNTS else value
            for name, value in _with_names(schema, self.root, path).items()
            if name not in _DROPPED and not name.startswith("x-")
        }
        out = schema_walk.map_schemas(
            said,
            lambda one, place: self.narrow(one, f"{path}/{place}", _around(said, place, around)),
        )
        if "$ref" in out:
            out["$ref"] = schema_walk.as_uri(out["$ref"])
        _narrow_format(out)
        _narrow_bounds(out)
        _narrow_patterns(out)
        _rename_items(out)
        if "unevaluatedProperties" in out:
            out.setdefault("additionalProperties", out.pop("unevaluatedProperties"))
        self._close(out, is_open=id(schema) in self.open_ids)
        if "oneOf" in out:
            out = self._choose(out, said["oneOf"], path, around)
        return count_properties(out, path)

    def _close(self, out: dict[str, Any], *, is_open: bool) -> None:
        has_names = "properties" in out
        if has_names and "type" not in out and "$ref" not in out:
            out["type"] = "object"
        if has_names or ("patternProperties" in out and _is_object(out)):
            if self.forced or (not is_open and _says_nothing_of_others(out)):
                out["additionalProperties"] = False
        elif self.forced and out.get("type") == "object":
            out.setdefault("additionalProperties", False)

    def _choose(
        self, out: dict[str, Any], given: list[Any], path: str, around: Sequence[Any]
    ) -> dict[str, Any]:
        """Replace ``oneOf`` by anyOf; ``ValueError`` unless the alternatives exclude each other as
        ``given``: narrowing alone must not be what separates them."""
        branches = out.pop("oneOf")
        if not self.prover.exclude_each_other(branches, given, [*around, out]):
            raise ValueError(
                f"JSON schema: two alternatives of {path}/oneOf may hold together, which cannot be "
                "followed; use anyOf, or let each exclude the others, for example by a "
                "property with a different const in each."
            )
        return with_choice(out, branches)


def _around(schema: Mapping[str, Any], place: str, around: Sequence[Any]) -> Sequence[Any]:
    """The schemas that apply to the same values as the part at ``place``."""
    word = place.partition("/")[0]
    if word == "allOf":
        return [*around, schema]
    if word not in ("anyOf", "oneOf"):
        return ()
    return [*around, {name: one for name, one in schema.items() if name != word}]


def _with_names(schema: Mapping[str, Any], root: Any, path: str) -> Mapping[str, Any]:
    """The schema with ``propertyNames`` as properties or patterns of them, without others."""
    if "propertyNames" not in schema:
        return schema
    of_values = schema.get("additionalProperties", True)
    names = keywords.names_listed(schema, root)
    required = schema.get("required", ())
    if names is not None and sum(name not in required for name in names) <= MAX_OPTIONAL:
        listed = {"properties": dict.fromkeys(names, of_values)} if names else {}
        return {**schema, **listed, "additionalProperties": False}
    pattern = keywords.names_pattern(schema, root)
    if pattern is None:
        raise ValueError(
            f"JSON schema: the keyword 'propertyNames' at {path}/propertyNames cannot be honoured; "
            f"{keywords.REFUSED['propertyNames']}."
        )
    return {**schema, "patternProperties": {pattern: of_values}, "additionalProperties": False}


def _narrow_patterns(out: dict[str, Any]) -> None:
    if "pattern" in out:
        out["pattern"] = plain_escapes(out["pattern"])
    if "patternProperties" in out:
        of_names = out["patternProperties"]
        out["patternProperties"] = {plain_escapes(name): one for name, one in of_names.items()}


def _rename_items(out: dict[str, Any]) -> None:
    """Rename keywords of arrays to their names since JSON Schema 2020-12."""
    if isinstance(out.get("items"), list):
        out["prefixItems"] = out.pop("items")
        if "additionalItems" in out:
            out["items"] = out.pop("additionalItems")
    out.pop("additionalItems", None)


def _narrow_format(out: dict[str, Any]) -> None:
    """Express ``format`` by a pattern, a length or bounds if possible; drop it if it restricts
    nothing."""
    format = out.get("format")
    if format is None:
        return
    if format in keywords.FORMAT_BOUNDS and not _OF_NUMBERS.isdisjoint(keywords.types_of(out)):
        low, high = keywords.FORMAT_BOUNDS[format]
        out["minimum"] = max(low, out.get("minimum", low))
        out["maximum"] = min(high, out.get("maximum", high))
    if keywords.is_annotation(out):
        del out["format"]
    elif format in keywords.FORMAT_PATTERNS:
        pattern = keywords.FORMAT_PATTERNS[out.pop("format")]
        if "pattern" in out:
            out["allOf"] = [*out.get("allOf", ()), {"pattern": pattern}]
        else:
            out["pattern"] = pattern
    elif format in keywords.FORMAT_LENGTHS:
        longest = keywords.FORMAT_LENGTHS[format]
        out["maxLength"] = min(longest, out.get("maxLength", longest))


def _narrow_bounds(out: dict[str, Any]) -> None:
    """Make bounds inclusive, except for non-integers a lower one below 0 and an upper one above:
    compilers lose other exclusive bounds, and a number right beside one may be read as the bound.
    """
    types = out.get("type", "number")
    is_whole = "number" not in ([types] if isinstance(types, str) else types)
    for word, exclusive, sign in keywords.BOUNDS:
        least: list[float] = []
        if word in out:
            least.append(math.ceil(sign * out[word]) if is_whole else sign * out[word])
        if exclusive in out:
            bound = sign * out.pop(exclusive)
            if not is_whole and -keywords.MAX_INTEGER <= bound < 0:
                out[exclusive] = sign * _exact(bound)
            else:
                least.append(_first_above(bound, is_whole=is_whole))
        if least:
            out[word] = sign * _exact(max(-keywords.MAX_INTEGER, *least))


def _first_above(bound: float, *, is_whole: bool) -> float:
    if is_whole:
        return math.floor(bound) + 1
    return math.nextafter(bound, math.inf) if bound else LEAST_ABOVE_0


def _exact(bound: float) -> float:
    """The bound if the compiler reads it exactly, as nearly all, else the next above that it
    does."""
    for _ in range(_MAX_STEPS):
        if is_exact(bound):
            return bound
        bound = math.nextafter(bound, math.inf)
    return bound


def _is_object(schema: Mapping[str, Any]) -> bool:
    types = schema.get("type", ())
    return "object" in ([types] if isinstance(types, str) else types)


def _says_nothing_of_others(schema: Mapping[str, Any]) -> bool:
    """Whether the schema neither mentions nor needs properties besides those that it names."""
    if "additionalProperties" in schema or "$ref" in schema:
        return False
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", ())
    is_long_enough = bool(patterns) or schema.get("minProperties", 0) <= len(named)
    return is_long_enough and all(
        name in named or any(_matches(one, name) for one in patterns)
        for name in schema.get("required", ())
    )


def _matches(pattern: str, name: str) -> bool:
    """Whether the pattern certainly matches the name."""
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False
