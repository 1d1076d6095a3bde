"""Grammar rows: tokens that come late, ends, thinking, and rows that change hands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from quire.request import RowSampling
from quire.step import JoinedRow, RowToken, StepPlan
from quire.structured import Constraint, Thinking
from quire.worker.grammar_rows import GrammarRows
from quire.worker.watch import StepLabel, Watch
from tests.unit.structured_outputs.grammars import END, NUM_TOKENS, NUM_WORDS, compiled

A, B, C = map(ord, "xyz")
THINK_END = (300 % NUM_TOKENS, 200)
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

    def read(self, watch: Watch, label: StepLabel) -> np.ndarray:
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
        self.rows = GrammarRows(max_rows=8, vocab_size=NUM_TOKENS, watch=Watch(0))
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


THINKING = Thinking(end_token_ids=THINK_END)
ALL = set(range(NUM_TOKENS))


def test_a_grammar_begins_behind_the_thought_which_does_not_end_the_row() -> None:
    world = World(joined(0, Constraint(grammar=REGEX.grammar, thinking=THINKING)))
    assert world.allowed(0) == [ALL - {END}]
    for token_id in (B, THINK_END[0], THINK_END[0]):
        world.sampled({0: token_id})
    assert world.allowed(0) == [ALL - {END}]
    world.sampled({0: THINK_END[1]})
    assert world.allowed(0) == [{A}]


def test_a_thought_that_the_prompt_has_ended_is_over() -> None:
    constraint = Constraint(grammar=REGEX.grammar, thinking=THINKING)
    prompt = [1, *THINK_END, 5]
    assert World(joined(0, constraint, prompt=prompt)).allowed(0) == [{A}]


def test_a_budget_forces_the_end_of_a_thought() -> None:
    limited = Constraint(thinking=Thinking(end_token_ids=THINK_END, budget=2))
    world = World(joined(0, limited))
    assert world.allowed(0) == [None]
    world.sampled({0: A})
    assert world.allowed(0) == [None]
    world.sampled({0: THINK_END[0]})  # by itself, and goes on where that was
    assert world.allowed(0) == [{THINK_END[1]}]
    world.sampled({0: THINK_END[1]})
    assert world.allowed(0) == [None]
    without = World(joined(0, Constraint(thinking=Thinking(end_token_ids=THINK_END, budget=0))))
    assert without.allowed(0) == [{THINK_END[0]}]
