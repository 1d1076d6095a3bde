"""Grammars by xgrammar: EBNF and structural tags.

JSON schemas only inside structural tags: xgrammar silently ignores much of a schema, so schemas are
checked for what it honours, and given the types that they imply.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any
from urllib.parse import unquote

import numpy as np

from quire.structured import Grammar, GrammarSpec, GrammarState
from quire.structured_outputs import keywords, schema_walk, tag_patterns, tag_types
from quire.structured_outputs.blame import DEAD_END
from quire.structured_outputs.idle import without_idle
from quire.structured_outputs.narrow import narrowed
from quire.structured_outputs.patterns import plain_escapes
from quire.structured_outputs.token_table import TokenTable

MAX_WHITESPACE = 2
AT_ONCE = 16
NUM_THREADS = 4
NUM_DECIMALS = 6  # of the numbers that it writes between bounds

# Keywords that xgrammar 0.2.8 gets wrong in JSON Schema's test suite; all others need a type.
_NOT_HONOURED = frozenset(
    {"allOf", "oneOf", "patternProperties", "multipleOf", "format", "$anchor", "$id"}
)
_LENGTHS = ("minLength", "maxLength")
_BESIDE_FORMAT = (*_LENGTHS, "pattern", "enum", "const")

# A literal, a comment, or a class, which may be negated.
_PIECE_OF_EBNF = re.compile(r'"(?:\\.|[^"\\\n])*"|#[^\n]*|\[\^?(?:\\[\s\S]|[^\]\\])+\]')
_ESCAPE_OF_EBNF = re.compile(r"\\x(?P<code>[0-9A-Fa-f]{2})|\\[\s\S]")


class XGrammar:
    """Compiles for one vocabulary."""

    def __init__(self, table: TokenTable) -> None:
        import xgrammar

        self._table = table
        info = xgrammar.TokenizerInfo(
            list(table.tokens), vocab_size=len(table), stop_token_ids=[table.end_token_ids[0]]
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def compile(self, spec: GrammarSpec) -> Grammar:
        """``ValueError`` with what is wrong."""
        import xgrammar

        try:
            if spec.kind == "ebnf":
                text = _with_exact_escapes(spec.source)
                xgrammar.Grammar.from_ebnf(text)  # names places nearly as they were given
                compiled = self._compiler.compile_grammar(_without_surrogates(text))
            else:
                tag = tag_for_xgrammar(json.loads(spec.source), spec)
                compiled = self._compiler.compile_structural_tag(json.dumps(tag))
        except (RuntimeError, TypeError) as error:  # the library's own are `RuntimeError`
            reason = re.sub(r"^\[[^\]]*\] \S+: ", "", " ".join(str(error).split()))[:400]
            raise ValueError(f"the {spec.kind} grammar cannot be used: {reason}") from None
        return XGCompiled(compiled, self._table)


class XGCompiled:
    """One compiled grammar."""

    is_spent = False  # its states share nothing that grows

    def __init__(self, compiled: Any, table: TokenTable) -> None:
        self._compiled = compiled
        self.end_token_id, *self.other_ends = table.end_token_ids
        self.num_bytes = int(compiled.memory_size_bytes)

    def new_state(self) -> XGState:
        import xgrammar

        return XGState(xgrammar.GrammarMatcher(self._compiled))

    def fill_all(self, states: Sequence[GrammarState], masks: np.ndarray) -> list[int]:
        if len(states) < AT_ONCE:
            for state, mask in zip(states, masks, strict=True):
                state.fill(mask)
        else:
            ours = [state for state in states if isinstance(state, XGState)]
            _batch().batch_fill_next_token_bitmask([state.matcher for state in ours], masks)
            for state, mask in zip(ours, masks, strict=True):
                state.is_stuck = not mask.any()
        return [i for i, state in enumerate(states) if state.error() is not None]


class XGState:
    """The state of one output within a grammar."""

    def __init__(self, matcher: Any) -> None:
        self.matcher = matcher
        self.is_stuck = False  # nothing may be next, not even the end

    def accept(self, token_id: int) -> bool:
        return bool(self.matcher.accept_token(token_id))

    def fill(self, mask: np.ndarray) -> None:
        self.matcher.fill_next_token_bitmask(mask.reshape(1, -1), 0)
        self.is_stuck = not mask.any()

    def error(self) -> str | None:
        return DEAD_END if self.is_stuck else None  # it has no limits


def _with_exact_escapes(ebnf: str) -> str:
    r"""Write each ``\xHH`` as ``\u00HH``: the library would take more digits that follow."""

    def exact(found: re.Match[str]) -> str:
        return rf"\u00{found['code']}" if found["code"] else found[0]

    return _PIECE_OF_EBNF.sub(
        lambda found: (
            found[0] if found[0].startswith("#") else _ESCAPE_OF_EBNF.sub(exact, found[0])
        ),
        ebnf,
    )


def _without_surrogates(ebnf: str) -> str:
    """Exclude surrogates, which are no text, from each negated class."""
    return _PIECE_OF_EBNF.sub(lambda found: re.sub(r"^\[\^", r"[^\\ud800-\\udfff", found[0]), ebnf)


def tag_for_xgrammar(tag: Mapping[str, Any], spec: GrammarSpec) -> dict[str, Any]:
    """The newer form of a structural tag, with its schemas as this library reads them;
    ``ValueError`` for what it cannot follow."""
    if "structures" in tag:
        tag = _from_legacy(tag)
    if not isinstance(tag.get("format"), Mapping):
        raise ValueError(
            "structural_tag must have a format, or structures and triggers as in its older form."
        )
    return {"type": "structural_tag", "format": _prepared(tag["format"], spec)}


def _from_legacy(tag: Mapping[str, Any]) -> Mapping[str, Any]:
    tags = [
        {
            "type": "tag",
            "begin": one["begin"],
            "content": {"type": "json_schema", "json_schema": one.get("schema", True)},
            "end": one["end"],
        }
        for one in tag["structures"]
    ]
    return {"format": {"type": "triggered_tags", "triggers": tag["triggers"], "tags": tags}}


def _prepared(value: Any, spec: GrammarSpec, path: str = "structural_tag.format") -> Any:
    if isinstance(value, list):
        return [_prepared(one, spec, f"{path}[{i}]") for i, one in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    out = {}
    for name, one in value.items():
        if name == "json_schema":
            place = f"{path}.{name}"
            _check_formats(without_idle(one), place)
            schema = narrowed(one, closes_objects=spec.closes_objects, path=place)
            out[name] = _typed(schema, schema, place)
        else:
            out[name] = _prepared(one, spec, f"{path}.{name}")
    match value:
        case {"type": "regex", "pattern": str(pattern)}:
            out["pattern"] = _whole_text(pattern, f"{path}.pattern")
        case {"type": "grammar", "grammar": str(grammar)}:
            out["grammar"] = _without_surrogates(_with_exact_escapes(grammar))
    if "json_schema" in value:
        limit = MAX_WHITESPACE if spec.any_whitespace else 0
        out.setdefault("max_whitespace_cnt", limit)
    return out


def _check_formats(schema: Any, path: str) -> None:
    """``ValueError`` for a format that becomes a pattern beside what can have no pattern beside
    it."""
    if not isinstance(schema, Mapping):
        return
    beside = next((word for word in _BESIDE_FORMAT if word in schema), None)
    is_pattern = schema.get("format") in keywords.FORMAT_PATTERNS
    if beside is not None and is_pattern and not keywords.is_annotation(schema):
        raise ValueError(
            f"JSON schema: the keyword 'format' at {path}/format cannot be honoured beside "
            f"{beside!r} inside a structural tag or a call that must be made; leave one of them "
            "out, or constrain the whole output by json."
        )
    for place, one in schema_walk.schemas_in(schema):
        _check_formats(one, f"{path}/{place}")


def _whole_text(pattern: str, path: str) -> str:
    pattern = plain_escapes(pattern)
    reason = tag_patterns.why_not(pattern, tag_patterns.PLAIN)
    if reason is not None:
        raise ValueError(
            f"structural_tag: the pattern at {path} cannot be honoured: {reason}. Rewrite it, "
            "or constrain the whole output by regex."
        )
    return tag_patterns.followed_whole(pattern)


def _typed(schema: Any, root: Any, path: str) -> Any:
    """The schema with types where xgrammar heeds them; ``ValueError`` for keywords that it would
    ignore or follow wrongly."""
    if not isinstance(schema, Mapping):
        return schema
    for name in schema:
        if name in _NOT_HONOURED:
            raise ValueError(
                f"JSON schema: the keyword {name!r} at {path}/{name} cannot be honoured inside a "
                "structural tag or a call that must be made; leave it out, or constrain the whole "
                "output by json."
            )
    _check_possible(schema, path)
    out = schema_walk.map_schemas(schema, lambda one, place: _typed(one, root, f"{path}/{place}"))
    out = tag_types.without_idle_type(tag_types.with_meant_type(out), root, path)
    _check_siblings(out, path)
    _check_decimals(out, path)
    _check_names(out, path)
    _check_text(out, path)
    _say_text(out)
    if "$ref" in out:
        out["$ref"] = unquote(out["$ref"])  # it takes names as they stand there
    return out


def _check_possible(schema: Mapping[str, Any], path: str) -> None:
    """``ValueError`` that names a part without any value; xgrammar refuses the whole schema and
    does not say why."""
    for place, one in schema_walk.schemas_in(schema):
        if one is False and place not in ("additionalProperties", "items"):
            raise ValueError(
                f"JSON schema: {path}/{place} admits no value, which cannot be honoured inside a "
                "structural tag or a call that must be made; leave it out."
            )


def _check_names(schema: Mapping[str, Any], path: str) -> None:
    """``ValueError`` for names that xgrammar would not follow: it requires only those that
    properties describe, and takes one with escapes for another name."""
    if schema.get("properties") and schema.get("additionalProperties", False) is not False:
        raise ValueError(
            f"JSON schema: the keyword 'additionalProperties' at {path} cannot be honoured beside "
            "properties inside a structural tag or a call that must be made; make it false."
        )
    for name in schema.get("required", ()):
        if name not in schema.get("properties", ()):
            raise ValueError(
                f"JSON schema: the name {name!r} at {path}/required is none of properties, which "
                "cannot be honoured inside a structural tag or a call that must be made; describe "
                "it in properties."
            )


def _check_text(schema: Mapping[str, Any], path: str) -> None:
    """``ValueError`` for patterns and lengths that xgrammar does not follow; it ignores lengths
    beside a pattern."""
    reason = None
    word = "pattern" if "pattern" in schema else "maxLength"
    longest = max(schema.get(one, 0) for one in _LENGTHS)
    if word == "pattern" and not schema.keys().isdisjoint(_LENGTHS):
        reason = "it stands beside lengths; write them in the pattern"
    elif word == "pattern":
        reason = tag_patterns.why_not(schema["pattern"])
    elif longest > tag_patterns.MAX_LENGTH:
        reason = f"lengths may be {tag_patterns.MAX_LENGTH} at most, and {longest} is more"
    if reason is not None:
        raise ValueError(
            f"JSON schema: the keyword {word!r} at {path} cannot be honoured inside a structural "
            f"tag or a call that must be made: {reason}. Leave it out, or constrain the whole "
            "output by json."
        )


def _say_text(schema: dict[str, Any]) -> None:
    """Rewrite a pattern, and lengths as a pattern: xgrammar admits raw control characters in texts
    whose length it counts."""
    if "pattern" in schema:
        schema["pattern"] = tag_patterns.followed(schema["pattern"])
    elif not schema.keys().isdisjoint(_LENGTHS):
        least, most = (schema.pop(one, None) for one in _LENGTHS)
        schema["pattern"] = tag_patterns.length_pattern(least or 0, most)


def _check_decimals(schema: Mapping[str, Any], path: str) -> None:
    """``ValueError`` for bounds that have no number between them that xgrammar can write: it would
    write nothing at all."""
    first, last = (_first(schema, *bound) for bound in keywords.BOUNDS)
    if first > -last:
        raise ValueError(
            f"JSON schema: the bounds at {path} have no number of {NUM_DECIMALS} decimals between "
            "them, and none has more inside a structural tag or a call that must be made; widen "
            "them, or constrain the whole output by json."
        )


def _first(schema: Mapping[str, Any], word: str, exclusive: str, sign: int) -> float:
    """The first number within a bound that xgrammar can write, in units of the last decimal, times
    ``sign``; -inf without a bound."""
    unit = Fraction(sign, 10**NUM_DECIMALS)
    found: list[float] = [-math.inf]
    if word in schema:
        found.append(math.ceil(Fraction(repr(schema[word])) / unit))
    if exclusive in schema:
        found.append(math.floor(Fraction(repr(schema[exclusive])) / unit) + 1)
    return max(found)


def _check_siblings(schema: Mapping[str, Any], path: str) -> None:
    """``ValueError`` for other keywords beside one of these: xgrammar would ignore them."""
    for word in ("$ref", "anyOf", "oneOf", "enum", "const"):
        others = schema.keys() - {word, "$defs", "definitions"}
        if word in schema and others:
            raise ValueError(
                f"JSON schema: {sorted(others)[0]!r} beside {word!r} at {path} cannot be honoured "
                "inside a structural tag or a call that must be made; put both into one."
            )


@functools.cache
def _batch() -> Any:
    import xgrammar

    return xgrammar.BatchGrammarMatcher(NUM_THREADS)
