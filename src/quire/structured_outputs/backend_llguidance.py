"""Grammars by llguidance: JSON schemas, regular expressions, choices and Lark.

It matches without a table of the vocabulary, so compiling costs next to nothing, and it refuses
what it cannot follow.
"""

from __future__ import annotations

import functools
import json
import os
import re
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from quire.platform import num_cpu_cores
from quire.structured import Grammar, GrammarSpec, GrammarState, token_bit
from quire.structured_outputs import keywords, used_up
from quire.structured_outputs.blame import MatcherOf, reason_of, why_stuck, with_place
from quire.structured_outputs.check import schemas_in_tag
from quire.structured_outputs.exact_numbers import dumps
from quire.structured_outputs.idle import without_idle
from quire.structured_outputs.lark import with_complements_of_text, with_schemas
from quire.structured_outputs.look_ahead import without_look_ahead
from quire.structured_outputs.narrow import narrowed
from quire.structured_outputs.patterns import agreed_classes, json_spaces, plain_escapes
from quire.structured_outputs.quoting import (
    allowed_escapes,
    with_exact_patterns,
    with_short_patterns,
)
from quire.structured_outputs.structural_tags import tag_as_lark
from quire.structured_outputs.token_table import BYTES, TokenTable

# White space between two parts of JSON; bounded, or a model may write nothing else for ever.
WHITESPACE = r"[ ]{1,2}|\n[ ]{0,16}"
# Else, where a text is forced, it allows only the tokens that it would itself write it with.
_HEADER = '%llguidance {"no_forcing": true}\n'
# Estimated size of a compiled grammar, unknown to the library: the least, as measured after some
# use, and what its text adds: 35 to 110 bytes per character, most for objects of many properties.
LEAST_BYTES, BYTES_PER_CHARACTER = 112 << 10, 64
# Growth with every token where there are patterns: states of the lexer, 1 or 2 KB each.
BYTES_PER_TOKEN = 1 << 14
# Limits of the parser: many properties that may all come next need more than the defaults.
MAX_ITEMS_IN_ROW, MAX_STEP_ITEMS = 20_000, 500_000
# Limits of the lexer that all states of a lane share, and of one that a state has for itself.
MAX_SHARED_STATES, MAX_OWN_STATES = 100_000, 250_000
# Errors of a lexer that is used up, and the longest time of a compilation within a step.
_SPENT = ("too many states", "too many expressions")
MAX_ANEW_S = 0.2
MAX_LANES_S = 0.05  # for all lanes of a grammar, which are compiled while steps wait
LEAST_S = 1e-4  # as a clock may measure 0
# Slices of the vocabulary by JSON strings. Tokens of a slice are checked together; a string with
# room for n more characters needs a slice of n, or each token is checked by itself. Without
# the line ends that a dot does not match, so that strings of `.*` have slices too.
_STRING = r'[^"\\\x00-\x1F\x7F\u2028\u2029]'
SLICES = ["[ \\n\\r\\t]+", *(f"{_STRING}{{1,{n}}}" for n in (*range(1, 13), 30)), f"{_STRING}+"]
# A mask takes microseconds for most states, and for some a walk over a large vocabulary: 1 ms.
LARGE_VOCABULARY = 1 << 15
MAX_THREADS = 32
STATES_OF_LANE = 2  # from which on a grammar that is compiled quickly gets another lane
CompileAnew = Callable[[int], Any]  # from the limit of lexer states to a matcher
_STRICT = {"lenient": False, "coerce_one_of": False}
_COMPACT = {**_STRICT, "whitespace_flexible": False}
_NOT_ALLOWED = "doesn't satisfy the grammar"  # after a token that the grammar does not allow


def can_follow(spec: GrammarSpec) -> bool:
    """Whether this kind of constraint can be written for llguidance; compiling may still refuse
    it."""
    if spec.kind != "structural_tag":
        return spec.kind in _TEXTS
    return tag_as_lark(json.loads(spec.source), lambda schema: "") is not None


def grammar_text(spec: GrammarSpec) -> str:
    """The constraint as text that llguidance compiles."""
    return _TEXTS[spec.kind](spec)


def make_tokenizer(table: TokenTable) -> Any:
    import llguidance

    wrapped = llguidance.TokenizerWrapper(_Tokens(table))
    ends = list(table.end_token_ids)
    return llguidance.LLTokenizer(wrapped, n_vocab=len(table), eos_token=ends, slices=SLICES)


def may_be_slow(spec: GrammarSpec) -> bool:
    """Whether it has patterns, or schemas that apply to the same value, which may take too long."""
    if spec.kind in ("regex", "lark") or spec.whitespace_pattern is not None:
        return True
    if spec.kind not in ("json", "structural_tag"):
        return False
    try:
        given = json.loads(spec.source)
        schemas = [given] if spec.kind == "json" else [one for _, one in schemas_in_tag(given)]
        return any(keywords.may_be_slow(without_idle(one)) for one in schemas)
    except RecursionError:  # `check.py` says how deep it may be
        return True


class LLGuidance:
    """Compiles for one vocabulary."""

    def __init__(self, table: TokenTable) -> None:
        self._table = table
        self._tokenizer = make_tokenizer(table)

    def compile(self, spec: GrammarSpec) -> Grammar:
        """``ValueError`` says what is wrong with the grammar."""
        if spec.whitespace_pattern:
            self._check_spaces(spec.whitespace_pattern)
        text = grammar_text(spec)
        started = time.thread_time()
        matcher = self._matcher(text, MAX_SHARED_STATES)
        took = time.thread_time() - started
        if matcher.is_error():
            error = with_place(reason_of(matcher), spec, self._matcher_of(spec))
            raise ValueError(f"the {spec.kind} grammar cannot be used: {error}")
        may_walk = len(self._table) >= LARGE_VOCABULARY
        num_more = int(MAX_LANES_S / max(took, LEAST_S))
        return LLGrammar(
            matcher,
            self._table,
            anew=functools.partial(self._matcher, text) if took <= MAX_ANEW_S else None,
            max_lanes=min(_num_threads(), 1 + num_more) if may_walk else 1,
            num_bytes=LEAST_BYTES + BYTES_PER_CHARACTER * len(text),
            bytes_per_token=BYTES_PER_TOKEN if may_be_slow(spec) else 0,
        )

    def _matcher(self, text: str, max_states: int) -> Any:
        import llguidance

        limits = llguidance.LLParserLimits(
            max_items_in_row=MAX_ITEMS_IN_ROW,
            step_max_items=MAX_STEP_ITEMS,
            max_lexer_states=max_states,
            verbose_errors=False,
        )
        return llguidance.LLMatcher(self._tokenizer, text, log_level=0, limits=limits)

    def _matcher_of(self, spec: GrammarSpec) -> MatcherOf:
        """A function that makes a matcher for a part of a schema."""
        return lambda schema: self._matcher(
            f"{_HEADER}start: {_json_in_lark(schema, spec)}", MAX_SHARED_STATES
        )

    def _check_spaces(self, pattern: str) -> None:
        """``ValueError`` for a whitespace_pattern that matches more than JSON's white space."""
        words = _regex_in_lark(json_spaces(pattern)).partition("start:")[2]
        text = f"start: OTHER\nOTHER: ({words.strip()}) & ~/[ \\t\\r\\n]*/"
        matcher = self._matcher(text, MAX_SHARED_STATES)
        mask = np.zeros(-(-len(self._table) // 32), dtype=np.int32)
        if not matcher.is_error():
            matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        ends = sum(bool(mask[end >> 5] & token_bit(end)) for end in self._table.end_token_ids)
        if matcher.is_error() or np.unpackbits(mask.view(np.uint8)).sum() == ends:
            return
        raise ValueError(
            f"whitespace_pattern {pattern!r} matches more than spaces, tabs and line ends, which "
            r"is all that JSON has between its parts; write one such as '[ \n]?'."
        )


class LLGrammar:
    """One compiled grammar. The states of a lane share a lexer, which remembers what any of them
    met, up to a limit: then the grammar is spent, and each remaining state continues with a matcher
    of its own. Only one thread at a time can use a lexer, so many states need several lanes."""

    def __init__(
        self,
        matcher: Any,
        table: TokenTable,
        *,
        anew: CompileAnew | None,
        max_lanes: int,
        num_bytes: int,
        bytes_per_token: int,
    ) -> None:
        """``anew`` compiles the grammar again; None if that is slow."""
        self._lanes = [_Lane(matcher)]
        self._max_lanes = max_lanes
        self.anew = anew
        self.end_token_id, *self.other_ends = table.end_token_ids
        self.is_spent = False
        self.num_tokens = 0  # followed so far by all states
        self._num_bytes, self._bytes_per_token = num_bytes, bytes_per_token

    @property
    def num_bytes(self) -> int:
        return len(self._lanes) * self._num_bytes + self._bytes_per_token * self.num_tokens

    def new_state(self) -> LLState:
        lane = min(self._lanes, key=lambda one: len(one.states))
        if len(lane.states) >= STATES_OF_LANE and len(self._lanes) < self._max_lanes:
            assert self.anew is not None
            lane = _Lane(self.anew(MAX_SHARED_STATES))
            self._lanes.append(lane)
        return LLState(self, lane)

    def fill_all(self, states: Sequence[GrammarState], masks: np.ndarray) -> list[int]:
        ours = [state for state in states if isinstance(state, LLState)]
        start, stride = masks.ctypes.data, masks.strides[0]
        may_walk = masks.shape[1] >= LARGE_VOCABULARY // 32
        if may_walk and _num_threads() > 1 and len({state.lane for state in ours}) > 1:
            in_lanes = sorted(enumerate(ours), key=lambda one: id(one[1].lane))
            work = [(state.matcher, i) for i, state in in_lanes]  # a thread gets neighbours
            _executor().unsafe_compute_mask_ptr(work, start, stride, len(masks))
        else:
            for i, state in enumerate(ours):
                state.matcher.unsafe_compute_mask_ptr(start + i * stride, stride)
        for token_id in self.other_ends:
            masks[:, token_id >> 5] &= ~token_bit(token_id)
        failed = [i for i, state in enumerate(ours) if state.matcher.is_error()]
        for i in failed:
            ours[i].fill(masks[i])
        return [i for i in failed if ours[i].matcher.is_error()]


class _Lane:
    """States whose masks are filled one after the other."""

    def __init__(self, matcher: Any) -> None:
        self.matcher = matcher
        self.states: weakref.WeakSet[LLState] = weakref.WeakSet()


class LLState:
    """The state of one output within a grammar."""

    def __init__(self, grammar: LLGrammar, lane: _Lane) -> None:
        self.lane = lane
        self.matcher = lane.matcher.deep_copy()
        lane.states.add(self)
        self._grammar = grammar
        self._token_ids: list[int] = []
        self._is_alone = False

    def accept(self, token_id: int) -> bool:
        if not self.matcher.consume_token(token_id) and not (
            self._begins_anew() and self.matcher.consume_token(token_id)
        ):
            return False
        self._token_ids.append(token_id)
        self._grammar.num_tokens += 1
        return True

    def fill(self, mask: np.ndarray) -> None:
        self._fill(mask)
        if self.matcher.is_error() and self._begins_anew():
            self._fill(mask)

    def error(self) -> str | None:
        if not self.matcher.is_error():
            return None
        message = reason_of(self.matcher)
        return None if _NOT_ALLOWED in message else why_stuck(message)

    def _fill(self, mask: np.ndarray) -> None:
        self.matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        for token_id in self._grammar.other_ends:
            mask[token_id >> 5] &= ~token_bit(token_id)

    def _begins_anew(self) -> bool:
        """Switch to an unshared matcher at the same place, once, if the shared lexer is used up, be
        it by other states; True if that worked."""
        grammar = self._grammar
        if self._is_alone or not any(one in self.matcher.get_error() for one in _SPENT):
            return False
        grammar.is_spent = self._is_alone = True
        if grammar.anew is None:
            return False
        self.matcher = grammar.anew(MAX_OWN_STATES)
        return bool(self.matcher.consume_tokens(self._token_ids))


@functools.cache
def _executor() -> Any:
    import llguidance

    return llguidance.LLExecutor(_num_threads())


@functools.cache
def _num_threads() -> int:
    """The number of threads that fill masks; other cores are for the engine and the server."""
    num_cpus = min(len(os.sched_getaffinity(0)), 2 * num_cpu_cores())
    return max(1, min(MAX_THREADS, num_cpus * 4 // 5))


class _Tokens:
    """A vocabulary as the library reads it. Only its bytes matter; nothing is ever tokenized."""

    def __init__(self, table: TokenTable) -> None:
        self.eos_token_id = table.end_token_ids[0]
        self.bos_token_id = None
        self.tokens = table.tokens
        self.special_token_ids: list[int] = []  # their marks are bytes, which a grammar may match
        self._by_byte = {one[0]: i for i, one in enumerate(self.tokens) if len(one) == 1}

    def __call__(self, text: bytes | str) -> list[int]:
        data = text.encode() if isinstance(text, str) else text
        return [self._by_byte[byte] for byte in data if byte in self._by_byte]


def _json_text(spec: GrammarSpec) -> str:
    schema = json.loads(spec.source) if spec.kind == "json" else {"type": "object"}
    return f"{_HEADER}start: {_json_in_lark(schema, spec)}"


def _json_in_lark(schema: Any, spec: GrammarSpec, path: str = "#") -> str:
    closes_objects = spec.closes_objects and spec.kind != "json_object"
    schema = narrowed(schema, closes_objects=closes_objects, path=path)
    if isinstance(schema, bool):
        schema = {} if schema else {"enum": []}
    _check_names_left(schema, path)
    schema = with_exact_patterns(without_look_ahead(schema))
    pattern = WHITESPACE if spec.whitespace_pattern is None else spec.whitespace_pattern
    options: dict[str, Any] = _COMPACT
    if spec.any_whitespace and pattern:
        options = {**_STRICT, "whitespace_pattern": json_spaces(pattern)}
    if (escapes := allowed_escapes(schema)) is not None:
        schema = with_short_patterns(schema)
        options = {**options, "json_allowed_escapes": escapes}
    return f"%json {dumps({**schema, 'x-guidance': options})}"


def _check_names_left(schema: Any, path: str) -> None:
    """``ValueError`` for objects that may have used up all names that their patterns match."""
    for probe in used_up.probes(schema):
        rest = with_short_patterns(with_exact_patterns(probe.schema))
        text = f"{_HEADER}start: %json {dumps({**rest, 'x-guidance': _COMPACT})}"
        if not _may_continue(text, [*probe.text.encode()], ord('"')):
            raise ValueError(
                f"JSON schema: the pattern {probe.pattern!r} of names within {path} cannot be "
                "honoured where all names that match are given in properties or required, as no "
                "other may follow them; describe these names in properties alone."
            )


def _may_continue(text: str, token_ids: list[int], next_id: int) -> bool:
    """Whether the grammar allows the byte after the others; True if not even these can be
    written, which compiling says better."""
    import llguidance

    matcher = llguidance.LLMatcher(_byte_tokenizer(), text, log_level=0)
    if matcher.is_error() or not matcher.consume_tokens(token_ids):
        return True
    return bool(matcher.consume_token(next_id))


@functools.cache
def _byte_tokenizer() -> Any:
    return make_tokenizer(BYTES)


def _regex_text(spec: GrammarSpec) -> str:
    return _regex_in_lark(agreed_classes(spec.source, may_nest=True))


def _choice_text(spec: GrammarSpec) -> str:
    return _regex_in_lark("|".join(re.escape(one) for one in json.loads(spec.source)))


def _regex_in_lark(pattern: str) -> str:
    """The regular expression as Lark, converted by the library."""
    import llguidance

    text = llguidance.LLMatcher.grammar_from_regex(plain_escapes(pattern))
    (grammar,) = json.loads(text)["grammars"]
    return f"{_HEADER}{grammar['lark_grammar']}"


def _lark_text(spec: GrammarSpec) -> str:
    """The user's grammar may have options of its own: it becomes a part of one with ours."""
    source = with_complements_of_text(spec.source)
    source = with_schemas(source, lambda one: _json_in_lark(one.schema, spec, one.path))
    parts = [
        {"lark_grammar": f"{_HEADER}start: @users"},
        {"name": "users", "lark_grammar": source},
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
