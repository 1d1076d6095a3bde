r"""What llguidance would take for more than it says, in words that it follows: patterns of JSON
strings, and how strings may be written.

* A class that holds all control characters stands for every escape there is: ``[^"]`` would admit
  ``\"``. So no class here holds the character 0, which no text needs.
* In its classes ``[``, ``&&``, ``--`` and ``~~`` have a meaning that they have nowhere else.
* A name that is written with ``\u`` is none of those that are named, nor of a pattern. So nothing
  is written so, but where a text that is listed needs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from quire.structured_outputs import keywords

SHORT_ESCAPES = 'nrbtf\\"'
_PLAIN = "[^\\x00-\\x07\\x0b\\x0e-\\x1f\\x7f]*"  # no text that needs longer ones
# An escape with all that belongs to it, a class in brackets, flags, or the character 0.
_ESCAPE = r"\\(?:[pPxuU]\{[^}]*\}|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[\s\S])"
_ATOM = re.compile(rf"{_ESCAPE}|[\s\S]")
_PIECE = re.compile(
    rf"(?P<escape>{_ESCAPE})|\[(?P<not>\^?)(?P<body>\]?(?:{_ESCAPE}|[^\]\\])*)\]"
    r"|(?P<flags>\(\?[A-Za-z-]+)|\x00"
)
_MAY_HOLD_0 = re.compile(r"\\[pPxuUSWD]|\x00")
_WITHOUT_0 = r"--\x00"  # at the end of a class
_SPECIAL_IN_CLASS = frozenset("[]&~-^")


def with_exact_patterns(schema: Any) -> Any:
    """The schema, its patterns in the words for what they mean in JSON Schema, or for less."""
    if not isinstance(schema, Mapping):
        return schema
    out = keywords.map_schemas(schema, lambda one, place: with_exact_patterns(one))
    if "pattern" in out:
        out["pattern"] = exact_pattern(out["pattern"])
    if "patternProperties" in out:
        out["patternProperties"] = _of_names(out["patternProperties"])
    return out


def exact_pattern(pattern: str) -> str:
    """``ValueError`` where spaces in it are to mean nothing."""
    return _PIECE.sub(_exact_piece, pattern)


def allowed_escapes(schema: Any) -> str | None:
    """By which strings may be written; None for all. ``ValueError`` where neither would do."""
    if all(re.fullmatch(_PLAIN, text) for text in _listed(schema)):
        return SHORT_ESCAPES
    if any(map(_has_open_names, keywords.all_schemas(schema))):
        raise ValueError(
            "JSON schema: a text of const or enum has control characters that must be escaped, "
            "which cannot be honoured beside patternProperties, or properties and others; leave "
            "it out, or let additionalProperties be false."
        )
    return None


def _of_names(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Two patterns may have become the same one."""
    out: dict[str, Any] = {}
    for pattern, one in properties.items():
        name = exact_pattern(pattern)
        while name in out:
            name += "(?:)"
        out[name] = one
    return out


def _exact_piece(found: re.Match[str]) -> str:
    if found["body"] is not None:
        body = _exact_class(found["body"])
        if found["not"]:
            return rf"[^\x00{body}]"
        return f"[{body}{_WITHOUT_0}]" if _MAY_HOLD_0.search(body) else f"[{body}]"
    if found["flags"] is not None and "x" in found["flags"].partition("-")[0]:
        raise ValueError(
            "JSON schema: the flag x in a pattern cannot be honoured; write the pattern without "
            "spaces and comments."
        )
    return f"[{found[0]}{_WITHOUT_0}]" if _MAY_HOLD_0.match(found[0]) else found[0]


def _exact_class(body: str) -> str:
    """What is between the brackets: single characters, ranges and escapes."""
    atoms = _ATOM.findall(body)
    out: list[str] = []
    while atoms:
        out.append(_literal(atoms.pop(0)))
        if len(atoms) > 1 and atoms[0] == "-":
            out.append(f"-{_literal(atoms[1])}")
            del atoms[:2]
    return "".join(out)


def _literal(atom: str) -> str:
    return f"\\{atom}" if atom in _SPECIAL_IN_CLASS else atom


def _has_open_names(schema: Mapping[str, Any]) -> bool:
    """Whether a name may be none of those that it has words for."""
    named = "properties" in schema and schema.get("additionalProperties", True) is not False
    return named or "patternProperties" in schema


def _listed(schema: Any) -> Iterator[str]:
    """The texts in all lists of values."""
    for one in keywords.all_schemas(schema):
        yield from _texts([one.get("const"), one.get("enum")])


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for one in value:
                yield from _texts(one)
        case Mapping():
            yield from _texts([*value, *value.values()])
