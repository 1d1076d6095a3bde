r"""Rewrites what llguidance would follow too loosely: patterns of JSON
strings, and how strings may be written.

* A class that holds all control characters admits every escape: ``[^"]`` would admit
  ``\"``. So no class here holds the character 0, which no text needs.
* In its classes ``[``, ``&&``, ``--`` and ``~~`` are operators, unlike in other dialects.
* It does not recognize a property's name that is written with ``\u``, by name or by pattern. So
  such escapes are allowed only if a listed text needs them, or a pattern has such a character by
  itself. If other names are allowed too, such a pattern is narrowed to texts without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from quire.structured_outputs import schema_walk
from quire.structured_outputs.patterns import ESCAPE, agreed_classes

SHORT_ESCAPES = 'nrbtf\\"'
# Characters that need longer escapes, as the body of a class, and their codes.
_LONG = r"\x00-\x07\x0b\x0e-\x1f\x7f"
_LONG_CODES = frozenset({*range(0x20), 0x7F} - set(map(ord, "\b\t\n\f\r")))
_CODE = re.compile(r"\\[xuU]\{?([0-9A-Fa-f]+)\}?")
_CODES = {r"\a": 0x07, r"\v": 0x0B}
_NEVER = r"[^\s\S]"
_OPTIONAL = re.compile(r"[?*]|\{\s*0*\s*[,}]")  # counts that admit none
_ATOM = re.compile(rf"{ESCAPE}|[\s\S]")
# An escape, a class in brackets, parentheses and bars of groups and alternatives, or one of those
# characters.
_PIECE = re.compile(
    rf"(?P<escape>{ESCAPE})|\[(?P<not>\^?)(?P<body>\]?(?:{ESCAPE}|[^\]\\])*)\]"
    rf"|[()|{_LONG}]"
)
_MAY_HOLD_0 = re.compile(r"\\[pPxuUSWD]|\x00")
_WITHOUT_0 = r"--\x00"  # at the end of a class
_SPECIAL_IN_CLASS = frozenset("[]&~-^")


def with_exact_patterns(schema: Any) -> Any:
    """The schema with patterns that llguidance follows as JSON Schema means them, or more
    narrowly."""
    return _with_patterns(schema, lambda pattern: exact_pattern(agreed_classes(pattern)))


def exact_pattern(pattern: str) -> str:
    """The pattern for llguidance, without the flag ``x``."""
    return _PIECE.sub(_exact_piece, pattern)


def allowed_escapes(schema: Any) -> str | None:
    """The escapes by which strings may be written, given exact patterns; None for all.
    ``ValueError`` where neither would do."""
    is_listed = any(re.search(f"[{_LONG}]", text) for text in _listed(schema))
    patterns = [one for one in _patterns(schema) if any(map(_is_long, _PIECE.finditer(one)))]
    if not is_listed and not patterns:
        return SHORT_ESCAPES
    if not any(map(_has_open_names, schema_walk.all_schemas(schema))):
        return None
    if is_listed or not all(map(_does_without, patterns)):
        raise ValueError(
            "JSON schema: a text of const or enum, or a pattern, has control characters that must "
            "be escaped, which cannot be honoured beside patternProperties or propertyNames, or "
            "where other properties are allowed; leave them out, or name all properties and let "
            "additionalProperties be false."
        )
    return SHORT_ESCAPES


def with_short_patterns(schema: Any) -> Any:
    """The schema with its exact patterns narrowed to texts that need no longer escapes."""
    return _with_patterns(schema, _short_pattern)


def _with_patterns(schema: Any, change: Callable[[str], str]) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    out = schema_walk.map_schemas(schema, lambda one, place: _with_patterns(one, change))
    if "pattern" in out:
        out["pattern"] = change(out["pattern"])
    if "patternProperties" in out:
        out["patternProperties"] = _of_names(out["patternProperties"], change)
    return out


def _of_names(properties: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The changed patterns of names; ``(?:)`` keeps apart two that have become the same."""
    out: dict[str, Any] = {}
    for pattern, one in properties.items():
        name = change(pattern)
        while name in out:
            name += "(?:)"
        out[name] = one
    return out


def _exact_piece(found: re.Match[str]) -> str:
    if found["body"] is not None:
        body = _exact_class(found["body"])
        if found["not"]:
            return f"[^{_LONG}{body}]"
        return f"[{body}{_WITHOUT_0}]" if _MAY_HOLD_0.search(body) else f"[{body}]"
    return f"[{found[0]}{_WITHOUT_0}]" if _MAY_HOLD_0.match(found[0]) else found[0]


def _exact_class(body: str) -> str:
    """The body of a class with operators of llguidance's escaped."""
    return "".join("-".join(map(_literal, ends)) for ends in _ranges(body))


def _ranges(body: str) -> Iterator[list[str]]:
    """The members of a class: the two ends of a range, or an atom that stands alone."""
    atoms = _ATOM.findall(body)
    while atoms:
        first = atoms.pop(0)
        if len(atoms) > 1 and atoms[0] == "-":
            yield [first, atoms[1]]
            del atoms[:2]
        else:
            yield [first]


def _literal(atom: str) -> str:
    return f"\\{atom}" if atom in _SPECIAL_IN_CLASS else atom


def _has_open_names(schema: Mapping[str, Any]) -> bool:
    """Whether properties may have other names than those that are given."""
    named = "properties" in schema and schema.get("additionalProperties", True) is not False
    return named or "patternProperties" in schema


def _short_pattern(pattern: str) -> str:
    """The pattern without pieces that need longer escapes; the compiler leaves such characters out
    of mixed classes by itself."""
    return _PIECE.sub(lambda found: _NEVER if _is_long(found) else found[0], pattern)


def _does_without(pattern: str) -> bool:
    """Whether the pattern matches some text without characters that need longer escapes."""
    groups = [[True]]  # that are open, the pattern first: whether each alternative does so far
    for found in _PIECE.finditer(pattern):
        kind = found[0][0]
        if kind == "(":
            groups.append([True])
        elif kind == "|":
            groups[-1].append(True)
        else:
            does = any(groups.pop()) if kind == ")" and len(groups) > 1 else not _is_long(found)
            if not does and not _OPTIONAL.match(pattern, found.end()):
                groups[-1][-1] = False
    return any(groups[0])


def _is_long(found: re.Match[str]) -> bool:
    """Whether a piece matches nothing but characters that need longer escapes. Negated classes have
    none of them, by then."""
    if found["not"]:
        return False
    body = (found["body"] or found[0]).removesuffix(_WITHOUT_0)
    for ends in _ranges(body):
        first, last = _code(ends[0]), _code(ends[-1])
        if first > last or any(code not in _LONG_CODES for code in range(first, last + 1)):
            return False
    return True


def _code(atom: str) -> int:
    """The code of the character that an atom stands for; of other escapes that of the letter, which
    needs no longer escape."""
    if found := _CODE.fullmatch(atom):
        return int(found[1], 16)
    return _CODES.get(atom, ord(atom[-1]))


def _patterns(schema: Any) -> Iterator[str]:
    """All patterns, of texts and of names of properties."""
    for one in schema_walk.all_schemas(schema):
        if "pattern" in one:
            yield one["pattern"]
        yield from one.get("patternProperties", ())


def _listed(schema: Any) -> Iterator[str]:
    """The texts in all lists of values."""
    for one in schema_walk.all_schemas(schema):
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
