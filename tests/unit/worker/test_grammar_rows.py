"""Grammar rows: tokens that come late, ends, thinking, and rows that change hands."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from quire.request import RowSampling
from quire.step import JoinedRow, RowToken, StepPlan
from quire.structured import Constraint, GrammarState, Thinking, TokenBytes, TokenMark
from quire.worker import grammar_row
from quire.worker.grammar_rows import GrammarRows
from quire.worker.step_timeout import StepLabel, StepTimeout
from tests.unit.structured_outputs.grammars import (
    END,
    NUM_TOKENS,
    NUM_WORDS,
    SPECIAL,
    TABLE,
    compiled,
)

A, B, C = map(ord, "xyz")
PROMPT = [1, 2, 3]
NONE = np.zeros(0, dtype=np.int32)
PLAN = StepPlan(
    step_id=0, rows=NONE, num_computed=NONE, num_scheduled=NONE, samples=NONE != 0, epochs=NONE
)
LABEL = StepLabel(plan=PLAN)
REGEX = Constraint(grammar=compiled(regex="x(yz)*"))
ENDING = RowSampling(stop_token_ids=(END,))


class Tokens:
    """Of a step in flight."""

    def __init__(self, *token_ids: int) -> None:
        self._token_ids = np.array(token_ids, dtype=np.int32)
        self.num_read = 0

    def read(self, timeout: StepTimeout, label: StepLabel) -> np.ndarray:
        self.num_read += 1
        return self._token_ids


def joined(row: int, constraint: Constraint, sampling: RowSampling = ENDING, *output: int,
           prompt: list[int] = PROMPT, is_beam: bool = False) -> JoinedRow:  # fmt: skip
    return JoinedRow(
        row=row,
        token_ids=np.array([*prompt, *output], dtype=np.int32),
        num_prompt_tokens=len(prompt),
        block_ids=(),
        sampling=sampling,
        constraint=constraint,
        is_beam=is_beam,
    )


class World:
    """Rows, and what their masks allow."""

    def __init__(self, *rows: JoinedRow) -> None:
        self.rows = GrammarRows(max_rows=8, vocab_size=NUM_TOKENS, timeout=StepTimeout(0))
        self.rows.join(rows)

    def sampled(self, tokens: dict[int, int]) -> Tokens:
        step = Tokens(*tokens.values())
        self.rows.follow(np.array(list(tokens), dtype=np.int32), step, LABEL)
        return step

    def allowed(self, *rows: int) -> list[set[int] | None]:
        """None: everything."""
        masks = np.zeros((8, NUM_WORDS), dtype=np.int32)
        places = self.rows.fill(np.array(rows, dtype=np.int32), masks).tolist()
        found: list[set[int] | None] = [None] * len(rows)
        for line, place in enumerate(places):
            bits = np.unpackbits(masks[line].view(np.uint8), bitorder="little")[:NUM_TOKENS]
            found[place] = set(np.flatnonzero(bits).tolist())
        return found


def test_tokens_of_steps_before_are_taken_in_when_masks_are_asked_for() -> None:
    world = World(joined(3, REGEX), joined(5, REGEX))
    assert world.allowed(5, 1, 3) == [{A}, None, {A}]
    first = world.sampled({3: A, 1: 77, 5: A})
    second = world.sampled({3: B})
    assert (first.num_read, second.num_read) == (0, 0)
    assert world.allowed(3, 5) == [{C}, {B, END}]
    assert world.allowed(3, 5) == [{C}, {B, END}]
    assert (first.num_read, second.num_read) == (1, 1)


def test_rows_without_constraints_cost_nothing() -> None:
    world = World(joined(1, REGEX))
    world.rows.leave(1)
    assert not world.rows.are_among(np.array([1, 2]))
    assert world.sampled({1: A, 2: B}).num_read == 0
    assert world.allowed(1, 2) == [None, None]


def test_late_tokens_of_a_row_that_was_left_are_nobodys() -> None:
    world = World(joined(2, REGEX))
    late = world.sampled({2: A})
    world.rows.leave(2)
    world.rows.join([joined(2, REGEX)])
    assert world.allowed(2) == [{A}]
    assert late.num_read == 0  # its step may have failed


def test_a_preempted_row_goes_on_where_it_was() -> None:
    assert World(joined(0, REGEX, ENDING, A, B)).allowed(0) == [{C}]


def test_a_beam_follows_the_tokens_that_the_host_chose() -> None:
    world = World(joined(0, REGEX, is_beam=True))
    world.sampled({0: C})
    world.rows.put(
        [RowToken(row=0, position=3, token_id=A), RowToken(row=7, position=1, token_id=B)]
    )
    assert world.allowed(0) == [{B, END}]


def test_all_stop_tokens_may_end_what_may_end() -> None:
    world = World(joined(0, REGEX, replace(ENDING, stop_token_ids=(END, 9, 8))))
    assert world.allowed(0) == [{A}]
    world.sampled({0: A})
    assert world.allowed(0) == [{B, END, 9, 8}]


@pytest.mark.parametrize("options", [{"min_tokens": 3}, {"ends_late": True}])
def test_an_end_that_is_not_wanted_waits_until_nothing_else_may_follow(
    options: dict[str, int],
) -> None:
    sampling = replace(ENDING, **options)
    world = World(
        joined(0, REGEX, sampling), joined(1, Constraint(grammar=compiled(regex="x")), sampling)
    )
    world.sampled({0: A, 1: A})
    assert world.allowed(0, 1) == [{B}, {END}]


def test_enough_tokens_may_end() -> None:
    world = World(joined(0, REGEX, replace(ENDING, min_tokens=3)))
    for token_id in (A, B, C):
        world.sampled({0: token_id})
    assert world.allowed(0) == [{B, END}]


def test_tokens_after_an_end_mean_nothing_and_wrong_ones_are_errors() -> None:
    world = World(joined(0, REGEX), joined(1, REGEX))
    world.sampled({0: A, 1: C})
    world.sampled({0: END, 1: A})
    world.sampled({0: 77, 1: A})
    assert world.allowed(0, 1) == [None, None]
    errors = world.rows.errors(np.array([0, 1, 4]))
    assert list(errors) == [1] and f"does not allow token {C}" in errors[1]


def mark(text: bytes, *token_ids: int) -> TokenMark:
    """As it is written with bytes, or with these tokens."""
    return TokenMark(text=text, token_ids=token_ids or tuple(text))


def tag(text: bytes, token_id: int) -> TokenMark:
    """A token of its own."""
    return TokenMark(text=text, token_ids=(token_id,), added=((token_id, text),))


TEXTS = TokenBytes(lambda: TABLE.tokens)
AB = TABLE.tokens.index(b"ab")
THINK_BEGIN, THINK_END = (SPECIAL,), tuple(b"?!")
THINKING = Thinking(begins=(tag(b"<t>", SPECIAL),), ends=(mark(b"?!"),), is_open=True)
ALL = set(range(NUM_TOKENS))
ANSWER = Constraint(grammar=REGEX.grammar, thinking=THINKING, tokens=TEXTS)
MAYBE = replace(ANSWER, thinking=replace(THINKING, is_open=None))


def test_a_grammar_begins_behind_the_thought_which_does_not_end_the_row() -> None:
    world = World(joined(0, ANSWER))
    assert world.allowed(0) == [ALL - {END}]
    for token_id in (B, THINK_END[0], THINK_END[0]):
        world.sampled({0: token_id})
    assert world.allowed(0) == [ALL - {END}]
    world.sampled({0: THINK_END[1]})
    assert world.allowed(0) == [{A}]


@pytest.mark.parametrize("prompt", [[1, *THINK_END, 5], [*THINK_END, *THINK_BEGIN], PROMPT])
def test_what_the_prompt_says_of_thoughts_is_not_the_rows_own(prompt: list[int]) -> None:
    """A question may quote the mark, and the history may hold thoughts that are over."""
    assert World(joined(0, ANSWER, prompt=prompt)).allowed(0) == [ALL - {END}]
    over = replace(ANSWER, thinking=replace(THINKING, is_open=False))
    assert World(joined(0, over, prompt=prompt)).allowed(0) == [{A}]


def test_a_model_that_may_think_writes_a_thought_or_the_answer_and_nothing_else() -> None:
    world = World(joined(0, MAYBE), joined(1, MAYBE))
    assert world.allowed(0, 1) == [{A, *THINK_BEGIN}] * 2
    world.sampled({0: A, 1: THINK_BEGIN[0]})
    assert world.allowed(0, 1) == [{B, END}, ALL - {END}]
    world.sampled({0: B, 1: THINK_END[0]})
    world.sampled({0: C, 1: THINK_END[1]})
    assert world.allowed(0, 1) == [{B, END}, {A}]


def test_a_mark_of_several_tokens_may_begin_as_the_answer_does() -> None:
    begins = (mark(bytes([A, 77])),)
    constraint = replace(MAYBE, thinking=replace(THINKING, is_open=None, begins=begins))
    world = World(joined(0, constraint), joined(1, constraint))
    assert world.allowed(0) == [{A}]
    world.sampled({0: A, 1: A})
    assert world.allowed(0) == [{B, END, 77}]
    world.sampled({0: 77, 1: B})
    assert world.allowed(0, 1) == [ALL - {END}, {C}]
    for token_id in THINK_END:
        world.sampled({0: token_id})
    assert world.allowed(0) == [{A}]  # from its beginning


def test_a_mark_may_begin_as_no_answer_does() -> None:
    begins = (mark(bytes([77, 78])),)
    constraint = replace(MAYBE, thinking=replace(THINKING, is_open=None, begins=begins))
    world = World(joined(0, constraint))
    assert world.allowed(0) == [{A, 77}]
    world.sampled({0: 77})
    assert world.allowed(0) == [{78}]
    world.sampled({0: 78})
    assert world.allowed(0) == [ALL - {END}]


def test_any_spelling_of_the_end_ends_a_thought_and_the_first_is_forced() -> None:
    ends = (mark(bytes([90, 91])), mark(bytes([90, 92, 94])))
    thinking = replace(THINKING, ends=ends, budget=1)
    world = World(*(joined(i, replace(ANSWER, thinking=thinking)) for i in range(2)))
    world.sampled({0: 90, 1: 5})
    assert world.allowed(0, 1) == [{91}, {90}]
    long = World(joined(0, replace(ANSWER, thinking=replace(thinking, budget=None))))
    for token_id in (7, 90, 92, 94):
        long.sampled({0: token_id})
    assert long.allowed(0) == [{A}]


@pytest.mark.parametrize("spelled", [(b"?", b"ab"), (b"{", b"?", b"a", b"b")])
def test_an_end_is_found_in_the_text_whatever_tokens_spell_it(spelled: tuple[bytes, ...]) -> None:
    """Its tokens are others: with these alone a grammar would never begin, and nobody told."""
    ends = (mark(b"?ab", *b"?", SPECIAL),)
    world = World(joined(0, replace(ANSWER, thinking=replace(THINKING, ends=ends))))
    for token in spelled:
        assert world.allowed(0) != [{A}]
        world.sampled({0: TABLE.tokens.index(token)})
    assert world.allowed(0) == [{A}]


def test_a_beginning_is_found_in_the_text_too_behind_spaces() -> None:
    grammar = compiled(regex="\\n?ab+c*")
    thinking = replace(THINKING, is_open=None, begins=(mark(b"ab"),))
    constraint = replace(MAYBE, grammar=grammar, thinking=thinking)
    world = World(joined(0, constraint), joined(1, constraint), joined(2, constraint))
    world.sampled({0: ord("\n"), 1: AB, 2: ord("a")})
    assert world.allowed(1) == [ALL - {END}]
    world.sampled({0: AB, 2: ord("b")})
    assert world.allowed(0, 2) == [ALL - {END}] * 2


def test_no_token_ends_a_thought_and_goes_on_behind_it() -> None:
    """The grammar begins with the next token, and must not miss any text."""
    inside = replace(ANSWER, thinking=replace(THINKING, ends=(mark(b"??a"),)))
    world = World(joined(0, inside), joined(1, replace(inside, grammar=None)))
    world.sampled({0: ord("?")})
    assert world.allowed(0) == [ALL - {END}]
    for _ in range(2):  # the last two of three are the mark's
        world.sampled({0: ord("?")})
        assert world.allowed(0, 1) == [ALL - {END, AB}, None]
    world.sampled({0: ord("a")})
    assert world.allowed(0) == [{A}]
    anywhere = replace(ANSWER, thinking=replace(THINKING, ends=(mark(b"a"),)))
    assert World(joined(0, anywhere)).allowed(0) == [ALL - {END, AB}]


def test_special_tokens_in_a_thought_are_text_only_where_a_mark_has_them() -> None:
    end = TokenMark(text=b"?<s>a", token_ids=(*b"?", SPECIAL, *b"a"), added=((SPECIAL, b"<s>"),))
    with_special = replace(ANSWER, thinking=replace(THINKING, ends=(end,)))
    plain = replace(ANSWER, thinking=replace(THINKING, begins=(), ends=(mark(b"?a"),)))
    world = World(joined(0, with_special), joined(1, plain), joined(2, with_special))
    for token_id in end.token_ids:
        world.sampled({0: token_id, 1: token_id})
    for byte in b"?<s>a":
        world.sampled({2: byte})
    assert world.allowed(0, 1, 2) == [{A}] * 3


@pytest.mark.parametrize("written", [[*b"a</t>"], [A, SPECIAL]], ids=["plain", "token"])
def test_a_mark_that_is_a_token_of_its_own_may_be_spelled_out(written: list[int]) -> None:
    thinking = replace(THINKING, ends=(tag(b"</t>", SPECIAL),))
    world = World(joined(0, replace(ANSWER, thinking=thinking)))
    for token_id in written:
        assert END not in world.allowed(0)[0]
        world.sampled({0: token_id})
    assert world.allowed(0) == [{A}]


def test_such_marks_need_no_texts_where_no_grammar_waits() -> None:
    def load() -> list[bytes]:
        raise AssertionError("nobody needs it")

    thinking = replace(THINKING, ends=(tag(b"</t>", SPECIAL),), budget=2)
    world = World(joined(0, Constraint(thinking=thinking, tokens=TokenBytes(load))))
    for token_id in (A, SPECIAL, A, A):
        world.sampled({0: token_id})
    assert world.allowed(0) == [None]


@pytest.mark.parametrize("written", [b"?", b"x?a"])
def test_a_budget_forces_an_end_that_was_begun_with_other_tokens(written: bytes) -> None:
    ends = (mark(b"?ab?", *b"?", AB, *b"?"),)
    thinking = replace(THINKING, ends=ends, budget=len(written))
    world = World(joined(0, replace(ANSWER, thinking=thinking)))
    for byte in written:
        world.sampled({0: byte})
    due = ends[0].token_ids[1:] if written == b"?" else ends[0].token_ids
    for token_id in due:
        assert world.allowed(0) == [{token_id}]
        world.sampled({0: token_id})
    assert world.allowed(0) == [{A}]


def test_a_budget_forces_the_end_of_a_thought() -> None:
    world = World(joined(0, Constraint(thinking=replace(THINKING, budget=2), tokens=TEXTS)))
    assert world.allowed(0) == [None]
    world.sampled({0: A})
    assert world.allowed(0) == [None]
    world.sampled({0: THINK_END[0]})  # by itself, and goes on where that was
    assert world.allowed(0) == [{THINK_END[1]}]
    world.sampled({0: THINK_END[1]})
    assert world.allowed(0) == [None]
    without = World(joined(0, Constraint(thinking=replace(THINKING, budget=0), tokens=TEXTS)))
    assert without.allowed(0) == [{THINK_END[0]}]


def test_without_a_budget_the_answer_begins_at_once() -> None:
    """Nor is the grammar left where its text begins as a thought does."""
    begins = (mark(bytes([A, B])),)
    thinking = replace(THINKING, is_open=None, begins=begins, budget=0)
    world = World(joined(0, replace(MAYBE, thinking=thinking)))
    assert world.allowed(0) == [{A}]
    for token_id, then in ((A, {B, END}), (B, {C}), (C, {B, END})):
        world.sampled({0: token_id})
        assert world.allowed(0) == [then]
    opened = World(joined(0, replace(MAYBE, thinking=replace(THINKING, budget=0))))
    assert opened.allowed(0) == [{THINK_END[0]}]


def test_a_budget_counts_thoughts_and_not_answers() -> None:
    thinking = replace(THINKING, is_open=None, budget=1)
    limited = Constraint(thinking=thinking, tokens=TEXTS)
    world = World(joined(0, limited), joined(1, limited))
    for tokens in ({0: A, 1: ord("\n")}, {0: B, 1: THINK_BEGIN[0]}, {0: C, 1: 6}):
        world.sampled(tokens)
    assert world.allowed(0, 1) == [None, {THINK_END[0]}]
    for _ in range(5):
        world.sampled({0: 50})
    world.sampled({0: THINK_BEGIN[0]})  # in the midst of the answer it is text
    world.sampled({0: 50})
    assert world.allowed(0) == [None]


class Failing:
    """A grammar that meets a limit, or takes its time."""

    end_token_id = END
    other_ends = ()
    num_bytes = 1

    def __init__(self, seconds: float = 0.0, reason: str | None = None) -> None:
        self._seconds, self._reason = seconds, reason

    def new_state(self) -> Failing:
        return self

    def accept(self, token_id: int) -> bool:
        return True

    def error(self) -> str | None:
        return self._reason

    def fill(self, mask: np.ndarray) -> None:
        end = time.thread_time() + self._seconds
        while time.thread_time() < end:
            pass
        mask[:] = -1

    def fill_all(self, states: Sequence[GrammarState], masks: np.ndarray) -> list[int]:
        for state, mask in zip(states, masks, strict=True):
            state.fill(mask)
        return [i for i, state in enumerate(states) if state.error() is not None]


def test_a_grammar_that_meets_a_limit_ends_its_row_with_an_error_in_the_same_step() -> None:
    """Its mask allows the end only: the text would look complete."""
    failing = Constraint(grammar=Failing(reason="becomes too complex: too many states"))
    world = World(joined(0, failing), joined(1, REGEX))
    world.allowed(0, 1)
    errors = world.rows.errors(np.array([0, 1]))
    assert list(errors) == [0]
    assert str(errors[0]) == "the grammar becomes too complex: too many states"
    assert world.allowed(0, 1) == [None, {A}]


@pytest.mark.parametrize("source", ['root ::= "x" a\na ::= a "y"', 'start: "x" a\na: a "y"'])
def test_a_grammar_that_leads_nowhere_ends_its_row_with_an_error(source: str) -> None:
    """An empty mask would let any token follow."""
    dead = Constraint(grammar=compiled(grammar=source))
    world = World(joined(0, dead), joined(1, REGEX))
    assert world.allowed(0, 1) == [{A}, {A}]
    world.sampled({0: A, 1: A})
    world.allowed(0, 1)
    errors = world.rows.errors(np.array([0, 1]))
    assert list(errors) == [0]
    assert str(errors[0]).startswith("the grammar comes to a place where no token may follow")


def test_a_grammar_that_takes_too_long_ends_its_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_row, "MAX_ROW_S", 0.1)
    world = World(joined(0, Constraint(grammar=Failing(seconds=0.03))), joined(1, REGEX))
    for _ in range(8):
        world.allowed(0, 1)
        world.sampled({0: A})
    errors = world.rows.errors(np.array([0, 1]))
    assert list(errors) == [0] and "took more than 0.1 s to follow" in errors[0]
