"""Rows that begin with the same blocks are found, and followed as they come, go and change."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from quire.request import RowSampling
from quire.step import Int32, JoinedRow, StepPlan, TableEntries
from quire.worker import prefix_sharing
from quire.worker.prefix_sharing import PrefixSharing

BLOCK = 16
PREFIX = [90, 91, 92]


def sharing(**options: Any) -> PrefixSharing:
    defaults: dict[str, Any] = {"width": 8, "min_members": 3, "min_tokens": 2 * BLOCK}
    return PrefixSharing(max_rows=64, block_size=BLOCK, **{**defaults, **options})


def changes(
    joined: dict[int, list[int]] | None = None,
    *,
    left: Iterable[int] = (),
    blocks: Iterable[tuple[int, int, list[int]]] = (),
    group: int = 0,
) -> StepPlan:
    """A plan of changes alone; other groups' tables are all alike, and must not matter."""
    others = [7, 7, 7, 7]
    none = np.zeros(0, dtype=np.int32)
    return StepPlan(
        step_id=1,
        left=list(left),
        joined=[
            JoinedRow(
                row=row,
                token_ids=none,
                num_prompt_tokens=1,
                block_ids=(entries, others) if group == 0 else (others, entries),
                sampling=RowSampling(temperature=0.0),
            )
            for row, entries in (joined or {}).items()
        ],
        blocks=[TableEntries.of_row(r, group, f, ids) for r, f, ids in blocks]
        + [TableEntries.of_row(r, 1 - group, 0, others) for r, _, _ in blocks],
        rows=none,
        num_computed=none,
        num_scheduled=none,
        samples=none.astype(np.bool_),
        epochs=none,
    )


def rows(*numbers: int) -> Int32:
    return np.asarray(numbers, dtype=np.int32)


def found(one: PrefixSharing, *numbers: int) -> tuple[set[int], int] | None:
    """(rows that share, how many blocks); what `find` returns is checked to agree with itself."""
    result = one.find(rows(*numbers))
    if result is None:
        return None
    members, num_blocks = result
    assert members.dtype == num_blocks.dtype == np.int32
    assert len(members) == len(num_blocks) == len(numbers)
    places = members[members >= 0]
    assert (members[: len(places)] >= 0).all(), "members come first"
    assert set(np.flatnonzero(num_blocks)) == set(places), "nobody else has shared blocks"
    (length,) = set(num_blocks[places].tolist())
    return {numbers[place] for place in places}, length


def own(row: int, count: int = 2) -> list[int]:
    return [1000 + 10 * row + i for i in range(count)]


def test_rows_with_the_same_first_blocks_are_found_whatever_their_places() -> None:
    one = sharing()
    one.apply(changes({row: PREFIX + own(row) for row in (5, 2, 40)} | {7: own(7, 6)}))
    assert found(one, 40, 7, 2, 5) == ({2, 5, 40}, 3)
    assert found(one, 40, 2, 7) is None  # two are too few


@pytest.mark.parametrize(("num_blocks", "is_enough"), [(1, False), (2, True)])
def test_a_short_prefix_is_not_worth_it(num_blocks: int, is_enough: bool) -> None:
    one = sharing()
    one.apply(changes({row: PREFIX[:num_blocks] + own(row) for row in range(4)}))
    assert (found(one, 0, 1, 2, 3) is not None) == is_enough


def test_it_takes_16_rows_and_256_tokens_unless_told_otherwise() -> None:
    one = PrefixSharing(max_rows=64, width=20, block_size=64)
    one.apply(changes({row: [1, 2, 3, 4, *own(row)] for row in range(16)}))
    one.apply(changes({row: [1, 2, 3, *own(row)] for row in range(16, 40)}))
    assert found(one, *range(16)) == (set(range(16)), 4)
    assert found(one, *range(15)) is None
    assert found(one, *range(16, 40)) is None


def test_only_the_own_group_counts() -> None:
    one = sharing(group=1)
    one.apply(changes({row: own(row, 4) for row in range(4)}, group=1))
    assert found(one, 0, 1, 2, 3) is None
    one.apply(changes({row: PREFIX + own(row) for row in range(4)}, group=1))
    assert found(one, 0, 1, 2, 3) == ({0, 1, 2, 3}, 3)


def test_of_several_prefixes_the_one_that_saves_most_is_chosen() -> None:
    one = sharing()
    few_long = {row: [50, 51, 52, 53, 54, 55, *own(row)] for row in range(3)}  # 2 * 6 blocks
    many_short = {row: [60, 61, 62, *own(row)] for row in range(10, 16)}  # 5 * 3 blocks
    one.apply(changes(few_long | many_short))
    assert found(one, *few_long, *many_short) == (set(many_short), 3)
    assert found(one, *few_long, *list(many_short)[:4]) == (set(few_long), 6)


def test_a_branch_of_a_prefix_may_save_more_than_the_prefix() -> None:
    one = sharing()
    branch = {row: [*PREFIX[:2], 70, 71, 72, 73, *own(row)] for row in range(5)}  # 4 * 6
    others = {row: PREFIX[:2] + own(row) for row in range(10, 14)}  # with all 9: 8 * 2
    one.apply(changes(branch | others))
    assert found(one, *branch, *others) == (set(branch), 6)
    assert found(one, 0, 1, 2, *others) == ({0, 1, 2, *others}, 2)  # 6 * 2 and 2 * 6 tie


def test_rows_that_join_and_leave_are_followed() -> None:
    one = sharing()
    one.apply(changes({row: PREFIX + own(row) for row in range(3)}))
    assert found(one, 0, 1, 2) == ({0, 1, 2}, 3)
    one.apply(changes({3: PREFIX + own(3)}))
    assert found(one, 0, 1, 2, 3) == ({0, 1, 2, 3}, 3)
    one.apply(changes(left=[1]))
    assert found(one, 0, 2, 3) == ({0, 2, 3}, 3)
    one.apply(changes({1: own(1, 5)}, left=[0]))  # a row's next owner shares nothing
    assert found(one, 1, 2, 3) is None


def test_a_row_that_leaves_and_is_joined_in_one_plan_has_its_new_blocks() -> None:
    one = sharing()
    one.apply(changes({row: PREFIX + own(row) for row in range(3)}))
    assert found(one, 0, 1, 2) == ({0, 1, 2}, 3)
    one.apply(changes({2: own(2, 4)}, left=[2]))
    assert found(one, 0, 1, 2) is None


def test_a_preempted_row_comes_back_with_fewer_blocks() -> None:
    one = sharing()
    one.apply(changes({row: PREFIX + own(row) for row in range(4)}))
    one.apply(changes(left=[3]))
    assert found(one, 0, 1, 2) == ({0, 1, 2}, 3)
    one.apply(changes({3: [90, 91, 800]}))  # of its prefix the last block was evicted meanwhile
    assert found(one, 0, 1, 2, 3) == ({0, 1, 2, 3}, 2)  # as good as three rows and three blocks
    assert found(one, 0, 1, 3) == ({0, 1, 3}, 2)


def test_a_fork_shares_its_parents_blocks_until_it_writes() -> None:
    one = sharing()
    parent = [*PREFIX, 95]
    one.apply(changes(dict.fromkeys(range(3), parent)))
    # The last block is half full: all but one row get a copy before the next token is written.
    one.apply(changes(blocks=[(1, 3, [201]), (2, 3, [202])]))
    assert found(one, 0, 1, 2) == ({0, 1, 2}, 3)


def test_blocks_behind_the_prefix_change_nothing_and_those_in_it_do() -> None:
    one = sharing()
    one.apply(changes({row: PREFIX + own(row) for row in range(4)}))
    before = one.find(rows(0, 1, 2, 3))
    one.apply(changes(blocks=[(row, 5, [500 + row]) for row in range(4)]))
    assert one.find(rows(0, 1, 2, 3)) is before, "a steady step searches nothing"
    one.apply(changes(blocks=[(1, 0, [300])]))
    assert found(one, 0, 1, 2, 3) == ({0, 2, 3}, 3)


def test_blocks_past_the_width_are_not_looked_at() -> None:
    one = sharing()
    entries = list(range(100, 112))
    one.apply(changes(dict.fromkeys(range(3), entries)))
    one.apply(changes(blocks=[(0, 11, [999, 998])]))
    assert found(one, 0, 1, 2) == ({0, 1, 2}, 8)


def test_nothing_is_shared_by_no_rows() -> None:
    assert sharing().find(rows()) is None


def plainly(
    tables: dict[int, list[int]], width: int, min_members: int, min_blocks: int
) -> tuple[set[int], int] | None:
    """What `found` should be, by definition. Where several save as much: a prefix before what
    continues it, then that with the larger blocks."""
    members: dict[tuple[int, ...], set[int]] = {}
    for row, entries in tables.items():
        for length in range(min_blocks, min(len(entries), width) + 1):
            members.setdefault(tuple(entries[:length]), set()).add(row)
    worth_it = [
        ((len(sharers) - 1) * len(prefix), (*prefix, math.inf), sharers)
        for prefix, sharers in members.items()
        if len(sharers) >= min_members
    ]
    if not worth_it:
        return None
    _, prefix, sharers = max(worth_it, key=lambda one: one[:2])
    return sharers, len(prefix) - 1


@pytest.mark.parametrize("seed", range(12))
def test_it_finds_what_the_plain_definition_says(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_sharing, "_FIRST_ENTRIES", 1)  # so that small tables are long
    draw = random.Random(seed)
    min_members, width = draw.choice([2, 3, 5]), draw.choice([1, 9, 40])
    min_blocks = draw.choice([1, 3])
    one = sharing(width=width, min_members=min_members, min_tokens=min_blocks * BLOCK)
    trunk = list(range(100, 145))
    prompts = [trunk, trunk[:6] + list(range(200, 230)), list(range(300, 340))]
    tables: dict[int, list[int]] = {}
    num_found = 0
    for number in range(40):
        left = [row for row in tables if draw.random() < 0.1]
        tables = {row: entries for row, entries in tables.items() if row not in left}
        blocks = []
        for row, entries in tables.items():
            if draw.random() < 0.2:  # it grows, or writes to a block that it shared
                first = draw.choice([len(entries), draw.randint(0, len(entries))])
                entries[first : first + 2] = [5000 + draw.randrange(2), 6000 + row]
                blocks.append((row, first, entries[first : first + 2]))
        joined = {
            row: [*(prompt := draw.choice(prompts))[: draw.randint(1, len(prompt))], 1000 + row]
            for row in draw.sample(sorted(set(range(24)) - set(tables)), k=min(4, 24 - len(tables)))
        }
        one.apply(changes(joined, left=left, blocks=blocks))
        tables |= joined
        in_step = [row for row in tables if draw.random() < 0.9] if joined or left else []
        draw.shuffle(in_step)
        wanted = {row: tables[row] for row in in_step}
        expected = plainly(wanted, width, min_members, min_blocks)
        assert found(one, *in_step) == expected, number
        num_found += expected is not None
    assert num_found > 10 or width < min_blocks


class CountedReads(np.ndarray):
    """Counts the entries that are read from it."""

    num_read = 0

    def __getitem__(self, key: Any) -> Any:
        entries = np.asarray(super().__getitem__(key))
        self.num_read += entries.size
        return entries


def counted(one: PrefixSharing) -> CountedReads:
    one._tables = reads = one._tables.view(CountedReads)
    return reads


def test_tables_that_have_nothing_in_common_are_not_read_to_their_ends() -> None:
    one = sharing(width=1000)
    one.apply(changes({row: own(1000 * row, 1000) for row in range(64)}))
    reads = counted(one)
    assert found(one, *range(64)) is None
    assert 64 <= reads.num_read < 64 * 1000 / 10


def test_rows_that_stay_are_not_compared_again() -> None:
    one = sharing(width=1000)
    prompts = {0: list(range(1, 901)), 1: [*range(1, 301), *range(2001, 2601)]}
    one.apply(changes({row: prompts[row % 2] + own(10**6 + row) for row in range(60)}))
    assert found(one, *range(60)) == (set(range(1, 60, 2)), 900)
    one.apply(changes(left=[4, 5, 7]))
    reads = counted(one)
    staying = set(range(60)) - {4, 5, 7}
    assert found(one, *staying) == ({row for row in staying if row % 2 == 0}, 900)
    # Compared with one row of each prompt.
    one.apply(changes({row: prompts[1] + own(10**6 + row) for row in (4, 5)}))
    assert found(one, *staying, 4, 5) == ({row for row in staying if row % 2} | {4, 5}, 900)
    assert reads.num_read < 60 * 900 / 4
