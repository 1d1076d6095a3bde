"""Requires the property that tells the alternatives of ``oneOf`` apart where it need not be there,
as where it has a default: then they are those of ``anyOf``. It narrows. Knows no grammars.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.structured_outputs import keywords
from quire.structured_outputs.contradict import Prover, tag_of
from quire.structured_outputs.counts import with_choice


def with_tags_required(root: Any) -> Any:
    """The same schema where alternatives exclude each other already, or nothing tells them apart.

    What a reference leads to is narrowed for all that refer to it.
    """
    prover = Prover(root)
    schemas = {id(one): one for one in keywords.all_schemas(root)}
    tagged: set[int] = set()  # whose alternatives are told apart then
    required: dict[int, list[str]] = {}
    for key, schema in schemas.items():
        branches = schema.get("oneOf", ())
        found = tag_of(branches, root)
        if found is None or prover.exclude_each_other(branches, branches, ()):
            continue
        name, described = found
        if all(id(one) in schemas for one in described):
            tagged.add(key)
            for one in described:
                required.setdefault(id(one), []).append(name)
    return _changed(root, tagged, required) if tagged else root


def _changed(schema: Any, tagged: set[int], required: Mapping[int, list[str]]) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    out = keywords.map_schemas(schema, lambda one, place: _changed(one, tagged, required))
    if id(schema) in required:
        names = [*out.get("required", ()), *required[id(schema)]]
        out["required"] = list(dict.fromkeys(names))
    return with_choice(out, out.pop("oneOf")) if id(schema) in tagged else out
