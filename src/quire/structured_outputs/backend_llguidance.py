"""Grammars by llguidance: JSON schemas, regular expressions, choices and Lark.

It matches without a table of the vocabulary, so compiling costs next to nothing, and it refuses
what it cannot follow.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from quire.structured import Grammar, GrammarSpec, GrammarState
from quire.structured_outputs.narrow import narrowed
from quire.structured_outputs.structural_tags import tag_as_lark
from quire.structured_outputs.token_table import TokenTable

# Between two parts of a JSON text. Bounded: spaces must not be all that a model ever writes.
WHITESPACE = r"[ ]{1,2}|\n[ ]{0,16}"
# Else it would allow only the tokens that it would itself write a certain text with.
_HEADER = '%llguidance {"no_forcing": true}\n'
GRAMMAR_BYTES = 1 << 16  # about; the library does not say
AT_ONCE = 16  # states whose masks are filled by several threads, for a vocabulary of some size
LARGE_VOCABULARY = 1 << 15


def can_follow(spec: GrammarSpec) -> bool:
    """Whether there are words for this constraint; its compiler may still refuse it."""
    if spec.kind != "structural_tag":
        return spec.kind in _TEXTS
    return tag_as_lark(json.loads(spec.source), lambda schema: "") is not None


def grammar_text(spec: GrammarSpec) -> str:
    """What the library compiles."""
    return _TEXTS[spec.kind](spec)


def make_tokenizer(table: TokenTable) -> Any:
    import llguidance

    wrapped = llguidance.TokenizerWrapper(_Tokens(table))
    # Slices make strings of JSON fast: their tokens are looked at together.
    slices = llguidance.LLTokenizer.json_slices()
    ends = list(table.end_token_ids)
    return llguidance.LLTokenizer(wrapped, n_vocab=len(table), eos_token=ends, slices=slices)


class LLGuidance:
    """Compiles for one vocabulary."""

    def __init__(self, table: TokenTable) -> None:
        self._table = table
        self._tokenizer = make_tokenizer(table)

    def compile(self, spec: GrammarSpec) -> Grammar:
        """``ValueError`` with what is wrong."""
        return LLGrammar(compile_matcher(self._tokenizer, spec), self._table)


def compile_matcher(tokenizer: Any, spec: GrammarSpec) -> Any:
    import llguidance

    limits = llguidance.LLParserLimits(verbose_errors=False)
    matcher = llguidance.LLMatcher(tokenizer, grammar_text(spec), log_level=0, limits=limits)
    if matcher.is_error():
        raise ValueError(f"the {spec.kind} grammar cannot be used: {_first(matcher.get_error())}")
    return matcher


class LLGrammar:
    """One compiled grammar."""

    def __init__(self, matcher: Any, table: TokenTable) -> None:
        self._matcher = matcher
        self.end_token_id = table.end_token_ids[0]
        self.num_bytes = GRAMMAR_BYTES
        self._is_large = len(table) >= LARGE_VOCABULARY
        self._other_ends = table.end_token_ids[1:]

    def new_state(self) -> LLState:
        return LLState(self._matcher.deep_copy(), self._other_ends)

    def fill_all(self, states: Sequence[GrammarState], masks: np.ndarray) -> None:
        if len(states) < AT_ONCE or not self._is_large:
            for state, mask in zip(states, masks, strict=True):
                state.fill(mask)
            return
        matchers = [(s.matcher, i) for i, s in enumerate(states) if isinstance(s, LLState)]
        _executor().unsafe_compute_mask_ptr(
            matchers, masks.ctypes.data, masks.strides[0], len(masks)
        )
        for token_id in self._other_ends:
            masks[:, token_id >> 5] &= ~_bit(token_id)


class LLState:
    """Of one output."""

    def __init__(self, matcher: Any, other_ends: tuple[int, ...]) -> None:
        self.matcher = matcher
        self._other_ends = other_ends

    def accept(self, token_id: int) -> bool:
        return bool(self.matcher.consume_token(token_id))

    def fill(self, mask: np.ndarray) -> None:
        self.matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        for token_id in self._other_ends:
            mask[token_id >> 5] &= ~_bit(token_id)

    def is_done(self) -> bool:
        return bool(self.matcher.is_stopped())

    def rollback(self, count: int) -> None:
        self.matcher.rollback(count)

    def copy(self) -> LLState:
        return LLState(self.matcher.deep_copy(), self._other_ends)


def _bit(token_id: int) -> np.int32:
    return np.uint32(1 << (token_id & 31)).view(np.int32)


@functools.cache
def _executor() -> Any:
    import llguidance

    return llguidance.LLExecutor()


class _Tokens:
    """A vocabulary as the library reads it. Only its bytes matter; nothing is ever tokenized."""

    def __init__(self, table: TokenTable) -> None:
        self.eos_token_id = table.end_token_ids[0]
        self.bos_token_id = None
        self.tokens = list(table.tokens)
        for token_id in table.end_token_ids:  # a mark that no text has
            self.tokens[token_id] = b"\xff<end%d>" % token_id
        self.special_token_ids = list(table.end_token_ids)
        self._by_byte = {one[0]: i for i, one in enumerate(self.tokens) if len(one) == 1}

    def __call__(self, text: bytes | str) -> list[int]:
        data = text.encode() if isinstance(text, str) else text
        return [self._by_byte[byte] for byte in data if byte in self._by_byte]


def _json_text(spec: GrammarSpec) -> str:
    schema = json.loads(spec.source) if spec.kind == "json" else {"type": "object"}
    return f"{_HEADER}start: {_json_in_lark(schema, spec)}"


def _json_in_lark(schema: Any, spec: GrammarSpec) -> str:
    schema = narrowed(schema, closes_objects=spec.closes_objects and spec.kind != "json_object")
    if isinstance(schema, bool):
        schema = {} if schema else {"enum": []}
    if spec.any_whitespace:
        spaces: dict[str, Any] = {"whitespace_pattern": spec.whitespace_pattern or WHITESPACE}
    else:
        spaces = {"whitespace_flexible": False}
    options = {"x-guidance": {**spaces, "lenient": False, "coerce_one_of": False}}
    return f"%json {json.dumps({**schema, **options})}"


def _regex_text(spec: GrammarSpec) -> str:
    return _regex_in_lark(spec.source)


def _choice_text(spec: GrammarSpec) -> str:
    return _regex_in_lark("|".join(re.escape(one) for one in json.loads(spec.source)))


def _regex_in_lark(pattern: str) -> str:
    """The library writes the regular expression as Lark wants it."""
    import llguidance

    (grammar,) = json.loads(llguidance.LLMatcher.grammar_from_regex(pattern))["grammars"]
    return f"{_HEADER}{grammar['lark_grammar']}"


def _lark_text(spec: GrammarSpec) -> str:
    """The user's grammar may have options of its own: it becomes a part of one with ours."""
    parts = [
        {"lark_grammar": f"{_HEADER}start: @users"},
        {"name": "users", "lark_grammar": spec.source},
    ]
    return json.dumps({"grammars": parts})


def _tag_text(spec: GrammarSpec) -> str:
    body = tag_as_lark(json.loads(spec.source), lambda schema: _json_in_lark(schema, spec))
    assert body is not None, "can_follow has said so"
    return f"{_HEADER}start: {body}"


_TEXTS: dict[str, Callable[[GrammarSpec], str]] = {
    "json": _json_text,
    "json_object": _json_text,
    "regex": _regex_text,
    "choice": _choice_text,
    "lark": _lark_text,
    "structural_tag": _tag_text,
}


def _first(error: str) -> str:
    """Without the library's picture of the place."""
    reason = re.split(r"\s\d+ \| |<state>", error)[0]
    return " ".join(reason.split())[:400].removeprefix("at ")
