"""KV cache manager: prefix hits, forks, copy-on-write, windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.kv_cache.block_pool import BlockPool
from quire.kv_cache.manager import BlockTable, KVCacheManager
from quire.kv_cache.prefix_hash import chain_seed, extend_chain
from quire.kv_layout import NULL_BLOCK

SEED = chain_seed(None)


def hashes_of(tokens: list[int], block_size: int = 4) -> list[bytes]:
    hashes: list[bytes] = []
    extend_chain(hashes, SEED, np.array(tokens), block_size)
    return hashes


def manager(num_blocks: int = 50, windows: tuple[int | None, ...] = (None,)) -> KVCacheManager:
    return KVCacheManager(num_blocks=num_blocks, block_size=4, windows=windows)


def filled(kv: KVCacheManager, tokens: list[int]) -> BlockTable:
    """A table whose full blocks are computed and findable."""
    table = kv.new_table()
    assert kv.grow(table, 0, len(tokens)) is not None
    kv.register(table, hashes_of(tokens), len(tokens) // 4)
    return table


def test_lookup_finds_the_longest_full_prefix() -> None:
    kv = manager()
    table = filled(kv, list(range(18)))
    hit = kv.find_prefix(hashes_of([*range(14), 99, 99]), 15)
    assert hit.groups[0] == table.groups[0][:3]


def test_lookup_never_covers_the_token_that_must_be_computed() -> None:
    kv = manager()
    filled(kv, list(range(16)))
    assert len(kv.find_prefix(hashes_of(list(range(16))), 15)) == 3


def test_released_prefix_is_found_until_it_is_evicted() -> None:
    kv = manager(num_blocks=6)
    kv.release(filled(kv, list(range(8))))
    assert len(kv.find_prefix(hashes_of(list(range(8))), 8)) == 2
    other = kv.new_table()
    kv.grow(other, 0, 4 * 4)
    assert len(kv.find_prefix(hashes_of(list(range(8))), 8)) == 1
    kv.check_integrity([other])


def test_different_seed_or_earlier_token_makes_a_different_prefix() -> None:
    kv = manager()
    filled(kv, list(range(12)))
    for seed in (chain_seed("salt"), chain_seed("None"), chain_seed("")):
        seeded: list[bytes] = []
        extend_chain(seeded, seed, np.arange(12), 4)
        assert len(kv.find_prefix(seeded, 12)) == 0
    assert len(kv.find_prefix(hashes_of([9, *range(1, 12)]), 12)) == 0


def test_chain_grows_as_if_it_had_been_made_at_once() -> None:
    tokens = np.arange(23)
    grown: list[bytes] = []
    for end in (3, 4, 9, 23):
        extend_chain(grown, SEED, tokens[:end], 4)
    assert grown == hashes_of(list(range(23)))


def test_grow_without_room_changes_nothing() -> None:
    kv = manager(num_blocks=4)
    table = kv.new_table()
    assert kv.grow(table, 0, 16) is None
    assert table.is_empty
    assert kv.grow(table, 0, 12) is not None
    kv.check_integrity([table])


def test_tables_extended_together_own_a_new_block_each() -> None:
    kv = manager(windows=(None, 6))
    tables = [filled(kv, list(range(start, start + 8))) for start in (0, 20)]
    new = kv.extend(tables)
    assert [[table.groups[group][2] for table in tables] for group in (0, 1)] == new
    assert len({block for blocks in new for block in blocks}) == 4
    kv.check_integrity(tables)


def test_fork_shares_blocks_and_the_writer_copies_only_the_tail() -> None:
    kv = manager()
    parent = filled(kv, list(range(10)))
    child = kv.fork(parent, 10)
    assert kv.pool.num_free == 49 - 3
    growth = kv.grow(child, 10, 11)
    assert growth is not None
    assert growth.copies == [(parent.groups[0][2], child.groups[0][2])]
    assert growth.first == 2
    assert child.groups[0][:2] == parent.groups[0][:2]
    assert kv.grow(parent, 10, 11).copies == []  # type: ignore[union-attr]
    kv.check_integrity([parent, child])


def test_fork_at_a_block_border_copies_nothing() -> None:
    kv = manager()
    parent = filled(kv, list(range(8)))
    child = kv.fork(parent, 8)
    growth = kv.grow(child, 8, 9)
    assert growth is not None
    assert growth.copies == []


def test_blocks_behind_the_window_come_back_and_are_not_needed_for_a_hit() -> None:
    kv = manager(windows=(None, 6))
    tokens = list(range(24))
    table = filled(kv, tokens)
    used = 49 - kv.pool.num_free
    kv.release_passed(table, 24)
    assert 49 - kv.pool.num_free == used - 4  # positions 19..23 are seen: blocks 4 and 5 stay
    assert table.groups[1][:4] == [0, 0, 0, 0]
    other = kv.new_table()
    kv.grow(other, 0, 4 * 17)  # takes the blocks that were given back
    hit = kv.find_prefix(hashes_of(tokens), 24)
    assert len(hit) == 6
    assert hit.groups[1] == [0, 0, 0, 0, *table.groups[1][4:]]
    kv.check_integrity([table, other])


def test_hit_is_shortened_to_what_every_group_still_holds() -> None:
    kv = manager(num_blocks=13, windows=(None, 5))
    tokens = list(range(24))
    table = filled(kv, tokens)
    last_of_window_group = table.groups[1][5]
    kv.release(table)
    kv.pool.share([block for block in range(1, 13) if block != last_of_window_group])
    kv.pool.allocate(1)  # evicts the one cached block that nobody holds
    hit = kv.find_prefix(hashes_of(tokens), 24)
    assert len(hit) == 5
    assert hit.groups[1][:4] == [0, 0, 0, 0]  # position 20 sees 16 to 20
    assert hit.groups[1][4] != 0


WINDOWS: list[tuple[int | None, ...]] = [
    (None,),
    (1,),
    (5,),
    (None, 6),
    (9, None),
    (4, 13),
    (None, 3, 8, None),
]


@settings(max_examples=200, deadline=None)
@given(
    windows=st.sampled_from(WINDOWS),
    length=st.integers(1, 12),
    data=st.data(),
)
def test_hit_is_the_longest_prefix_of_which_every_group_knows_what_is_seen(
    windows: tuple[int | None, ...], length: int, data: st.DataObject
) -> None:
    kv = manager(num_blocks=60, windows=windows)
    table = kv.new_table()
    kv.grow(table, 0, 4 * length)
    known = [data.draw(st.lists(st.booleans(), min_size=length, max_size=length)) for _ in windows]
    known_blocks = tuple(
        [
            block if is_known else NULL_BLOCK
            for block, is_known in zip(entries, of_group, strict=True)
        ]
        for entries, of_group in zip(table.groups, known, strict=True)
    )
    hashes = hashes_of(list(range(4 * length)))
    kv.register(BlockTable(groups=known_blocks), hashes, length)

    def is_usable(num_blocks: int) -> bool:
        seen = range(4 * num_blocks)  # by the next token, at this position
        return all(
            of_group[position // 4]
            for window, of_group in zip(windows, known, strict=True)
            for position in (seen if window is None else seen[max(0, len(seen) - window + 1) :])
        )

    longest = max(count for count in range(length + 1) if is_usable(count))
    hit = kv.find_prefix(hashes, 4 * length)
    assert len(hit) == longest
    for window, entries, owned in zip(windows, hit.groups, table.groups, strict=True):
        first = 0 if window is None else max(0, 4 * longest - window + 1) // 4
        assert entries == [NULL_BLOCK] * first + owned[first:longest]
    kv.adopt(hit)
    kv.check_integrity([table, hit])


@pytest.mark.parametrize("windows", WINDOWS, ids=str)
@pytest.mark.parametrize("is_known", [True, False])
def test_look_up_asks_for_each_block_once(
    windows: tuple[int | None, ...], is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kv = manager(num_blocks=2000, windows=windows)
    tokens = list(range(400))
    if is_known:
        filled(kv, tokens)
    asked: list[bytes] = []
    find = BlockPool.find
    monkeypatch.setattr(
        BlockPool, "find", lambda pool, name: asked.append(name) or find(pool, name)
    )
    kv.find_prefix(hashes_of(tokens), 400)
    assert len(asked) == len(set(asked))
    if not is_known and None in windows:
        assert len(asked) == 1


def test_without_prefix_caching_nothing_is_found() -> None:
    kv = KVCacheManager(num_blocks=9, block_size=4, enable_prefix_caching=False)
    filled(kv, list(range(8)))
    assert kv.find_prefix(hashes_of(list(range(8))), 8).is_empty


def test_integrity_check_finds_a_table_nobody_released() -> None:
    kv = manager()
    filled(kv, list(range(8)))
    with pytest.raises(AssertionError, match="reference counts"):
        kv.check_integrity([])
