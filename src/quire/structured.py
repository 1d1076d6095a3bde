"""Constraints on the text: the forms that users write, and `GrammarSpec`, which all other code
reads.

`GrammarSpec` is what `StructuredOutputsParams`, `GuidedDecodingParams` and the HTTP fields become.
Owns names and which of them exclude each other. Knows nothing about how a grammar is compiled: that
is `structured_outputs/`. Imports no torch.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from quire.shown import shown

# Field -> the kind of its grammar. Exactly one of these may be set.
CONSTRAINTS: dict[str, str] = {
    "json": "json",
    "regex": "regex",
    "choice": "choice",
    "grammar": "grammar",
    "json_object": "json_object",
    "structural_tag": "structural_tag",
}
# Older names of constraints, and of what goes with them, -> fields of `GuidedDecodingParams`.
GUIDED_CONSTRAINTS = {
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
}
GUIDED_OPTIONS = {
    "guided_whitespace_pattern": "whitespace_pattern",
    "guided_decoding_backend": "backend",
}
_EBNF_RULE = re.compile(r"^\s*[A-Za-z_][\w.-]*\s*::=", re.MULTILINE)
# vLLM's backend names: accepted, but each kind of grammar has a fixed backend here.
_BACKENDS = ("auto", "xgrammar", "guidance", "outlines", "lm-format-enforcer")
_BACKEND_OPTIONS = ("no-fallback", "disable-any-whitespace", "no-additional-properties")


@dataclass(frozen=True, kw_only=True, slots=True)
class GrammarSpec:
    """A constraint in normal form: text, so that it can be hashed, compared and sent to
    processes."""

    kind: str  # a value of CONSTRAINTS; instead of grammar: ebnf or lark
    source: str  # JSON for json, choice and structural_tag; nothing for json_object
    any_whitespace: bool = True  # in JSON: some white space allowed, else none
    whitespace_pattern: str | None = None  # in JSON: overrides the usual pattern
    closes_objects: bool = False  # properties that a schema does not name are forbidden everywhere


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenMark:
    """A mark in a text, such as ``</think>``, and the tokens that a tokenizer writes it with."""

    text: bytes
    token_ids: tuple[int, ...]  # a model may also write it with other tokens
    added: tuple[tuple[int, bytes], ...] = ()  # the added tokens among them, with their text

    @property
    def is_token(self) -> bool:
        """Whether the mark is a single added token, which never merges with other text."""
        return len(self.token_ids) == len(self.added) == 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Thinking:
    """The thought that may precede an answer: its marks, and how long it may be."""

    begins: tuple[TokenMark, ...]  # any of them
    ends: tuple[TokenMark, ...]  # any of them; the first is the one that is forced
    is_open: bool | None  # whether the answer begins inside a thought; None: the model decides
    budget: int | None = None  # tokens, after which the end is forced


class TokenBytes:
    """The bytes that each token of a vocabulary [V] adds to a text (special ones: none), loaded on
    first use."""

    def __init__(self, load: Callable[[], Sequence[bytes]]) -> None:
        self._load = load
        self._overruns: dict[bytes, list[np.ndarray | None]] = {}

    def __getitem__(self, token_id: int) -> bytes:
        return self._tokens[token_id]

    def overruns(self, mark: bytes, num_written: int) -> np.ndarray | None:
        """Bitmask [ceil(V/32)] int32 of the tokens that complete ``mark``, of which ``num_written``
        bytes are written, and continue past it; None if there are none."""
        if mark not in self._overruns:
            self._overruns[mark] = self._all_overruns(mark)
        return self._overruns[mark][num_written]

    def _all_overruns(self, mark: bytes) -> list[np.ndarray | None]:
        """The masks of `overruns`, indexed by bytes written; one pass over the vocabulary takes
        tens of milliseconds."""
        last = mark[-1:]
        longer = [(i, token) for i, token in enumerate(self._tokens) if last in token[:-1]]
        found = [[i for i, token in longer if mark in token[:-1]]]
        for num_written in range(1, len(mark)):
            rest = mark[num_written:]
            found.append([i for i, token in longer if token.startswith(rest) and token != rest])
        return [self._mask(token_ids) for token_ids in found]

    def _mask(self, token_ids: list[int]) -> np.ndarray | None:
        if not token_ids:
            return None
        bits = np.zeros((-(-len(self._tokens) // 32), 32), dtype=np.bool_)
        bits.reshape(-1)[token_ids] = True
        return np.packbits(bits, bitorder="little").view(np.int32)

    @functools.cached_property
    def _tokens(self) -> Sequence[bytes]:
        return self._load()


NO_TOKENS = TokenBytes(tuple)


@functools.cache  # called in each step, for a few tokens
def token_bit(token_id: int) -> np.int32:
    """The bit of token ``t`` in its word of a mask: bit ``t % 32`` of word ``t // 32``."""
    return np.uint32(1 << (token_id & 31)).view(np.int32)


class GrammarState(Protocol):
    """How far one output has come in its grammar."""

    def accept(self, token_id: int) -> bool:
        """Advance by a token; False if the grammar forbids it, after which the state is
        unusable."""
        ...

    def fill(self, mask: np.ndarray) -> None:
        """Set the bits [ceil(V/32)] int32 of the tokens that may be next. The bit of the grammar's
        ``end_token_id`` says that the text may end here; its ``other_ends`` are not set."""
        ...

    def error(self) -> str | None:
        """What the grammar does, in words that follow "the grammar", if this state met a limit of
        its backend or nothing may be next; else None."""
        ...


class Grammar(Protocol):
    """A compiled constraint; any number of outputs may follow it at once."""

    @property
    def end_token_id(self) -> int: ...

    @property
    def other_ends(self) -> Sequence[int]:
        """Further tokens that end a text, which are never set in a mask."""
        ...

    @property
    def num_bytes(self) -> int:
        """Approximate memory the grammar uses now."""
        ...

    @property
    def is_spent(self) -> bool:
        """Whether new outputs should use a freshly compiled grammar."""
        ...

    def new_state(self) -> GrammarState: ...

    def fill_all(self, states: Sequence[GrammarState], masks: np.ndarray) -> list[int]:
        """`GrammarState.fill` for states [N], also of other grammars of this class, into ``masks``
        [N, ceil(V/32)]; returns the indices of the states that now have an error."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraint:
    """The constraint of a row. Never leaves the process."""

    grammar: Grammar | None = None  # None: only its thinking is limited
    thinking: Thinking | None = None
    tokens: TokenBytes = NO_TOKENS  # token texts, to find the marks of thoughts


FREE = Constraint()


@dataclass
class StructuredOutputsParams:
    """A constraint on the text: exactly one of ``json``, ``regex``, ``choice``, ``grammar``,
    ``json_object`` and ``structural_tag``."""

    json: str | dict[str, Any] | None = None  # a JSON schema, or a pydantic model's class
    regex: str | None = None  # of the whole output
    choice: list[str] | None = None
    grammar: str | None = None  # EBNF (with ::=) or Lark
    json_object: bool | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    whitespace_pattern: str | None = None
    structural_tag: str | dict[str, Any] | None = None

    def __post_init__(self) -> None:
        to_grammar_spec(self)


@dataclass
class GuidedDecodingParams:
    """The older name and shape of `StructuredOutputsParams`."""

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    backend: str | None = None  # only options after a colon matter, as in "auto:no-fallback"
    whitespace_pattern: str | None = None
    disable_fallback: bool = False  # accepted: there is no fallback
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    structural_tag: str | dict[str, Any] | None = None

    def __post_init__(self) -> None:
        to_grammar_spec(self)

    @classmethod
    def from_optional(cls, **given: Any) -> GuidedDecodingParams | None:
        """As the constructor, but without any constraint None."""
        set_ = {name: value for name, value in given.items() if value is not None}
        return cls(**set_) if any(name in set_ for name in CONSTRAINTS) else None


Structured = StructuredOutputsParams | GuidedDecodingParams | GrammarSpec | Mapping[str, Any]


def to_grammar_spec(params: Structured) -> GrammarSpec:
    """The `GrammarSpec` of what a user wrote; ``ValueError`` names a wrong field."""
    if isinstance(params, GrammarSpec):
        return params
    if isinstance(params, Mapping):
        return to_grammar_spec(from_mapping(params))
    given = {name: getattr(params, name) for name in CONSTRAINTS}
    chosen = [
        name
        for name, value in given.items()
        if value is not None and (name, value) != ("json_object", False)
    ]
    if len(chosen) != 1:
        found = " and ".join(chosen) if chosen else "none"
        raise ValueError(
            f"structured_outputs must have exactly one of {', '.join(CONSTRAINTS)}, got {found}; "
            f"{'keep one of them' if chosen else 'set one, or leave structured_outputs out'}."
        )
    name = chosen[0]
    kind, source = _FORMS[name](given[name])
    options = _backend_options(params)
    pattern = params.whitespace_pattern
    if pattern is not None and kind not in ("json", "json_object"):
        raise ValueError(
            f"whitespace_pattern is for json and json_object, got it with {name}; leave it out."
        )
    return GrammarSpec(
        kind=kind,
        source=source,
        any_whitespace=not (params.disable_any_whitespace or "disable-any-whitespace" in options),
        whitespace_pattern=pattern,
        closes_objects=(
            params.disable_additional_properties or "no-additional-properties" in options
        ),
    )


def _backend_options(params: StructuredOutputsParams | GuidedDecodingParams) -> list[str]:
    """The options after the colon of a backend's name; ``ValueError`` for an unknown word."""
    if not isinstance(params, GuidedDecodingParams) or not params.backend:
        return []
    name, _, text = _text("backend", params.backend).partition(":")
    options = [option for option in text.split(",") if option]
    known = {name: _BACKENDS, **dict.fromkeys(options, _BACKEND_OPTIONS)}
    for word, words in known.items():
        if word not in words:
            kind = "backend" if words is _BACKENDS else "option of a backend"
            raise ValueError(
                f"backend={params.backend!r}: there is no {kind} {word!r}; it is one of "
                f"{', '.join(words)}, or leave backend out."
            )
    return options


def from_mapping(given: Mapping[str, Any]) -> StructuredOutputsParams | GuidedDecodingParams:
    """Make the parameters from a mapping; ``ValueError`` for an unknown field."""
    cls = GuidedDecodingParams if "backend" in given else StructuredOutputsParams
    known = [item.name for item in fields(cls)]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(
            f"structured_outputs has no field {unknown[0]!r}; it has {', '.join(known)}."
        )
    return cls(**given)


def _json(value: Any) -> tuple[str, str]:
    if isinstance(value, type) and hasattr(value, "model_json_schema"):
        value = value.model_json_schema()
    if isinstance(value, str):
        value = _parsed("json", value)
    if not isinstance(value, (Mapping, bool)):
        raise ValueError(f"json must be a JSON schema, an object, got {shown(value)}.")
    try:
        return "json", json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"json must be a JSON schema: {error}; use JSON's types only.") from None


def _json_object(value: Any) -> tuple[str, str]:
    if value is not True:
        raise ValueError(f"json_object must be true or left out, got {shown(value)}.")
    return "json_object", ""


def _choice(value: Any) -> tuple[str, str]:
    is_list = isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
    if not is_list or not value or "" in value:
        raise ValueError(
            f"choice must be a list of non-empty strings, got {shown(value)}; list the allowed "
            "answers."
        )
    return "choice", json.dumps(list(dict.fromkeys(value)), ensure_ascii=False)


def _regex(value: Any) -> tuple[str, str]:
    return "regex", _text("regex", value)


def _grammar(value: Any) -> tuple[str, str]:
    text = _text("grammar", value)
    return ("ebnf" if _EBNF_RULE.search(text) else "lark"), text


def _structural_tag(value: Any) -> tuple[str, str]:
    if isinstance(value, str):
        value = _parsed("structural_tag", value)
    if not isinstance(value, Mapping):
        raise ValueError(f"structural_tag must be an object, got {shown(value)}.")
    try:
        return "structural_tag", json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"structural_tag: {error}; use JSON's types only.") from None


_FORMS = {
    "json": _json,
    "regex": _regex,
    "choice": _choice,
    "grammar": _grammar,
    "json_object": _json_object,
    "structural_tag": _structural_tag,
}


def _parsed(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not valid JSON: {error}; pass valid JSON.") from None


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a non-empty string, got {shown(value)}.")
    value.encode()  # a lone surrogate: this error says so
    return value
