"""Block pool against a simple model of what an owner may rely on."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from quire.kv_cache.block_pool import (
    BLOCK_CACHED,
    BLOCK_FREE,
    BLOCK_IN_USE,
    BLOCK_SHARED,
    BlockPool,
)

NUM_BLOCKS = 9


class PoolMachine(RuleBasedStateMachine):
    """Owners hold lists of blocks; the model is those lists and the hashes that were registered."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(NUM_BLOCKS)
        self.owners: list[list[int]] = []
        self.content: dict[int, bytes] = {}  # what each block was last registered as
        self.num_hashes = 0

    @property
    def in_use(self) -> set[int]:
        return {block for blocks in self.owners for block in blocks}

    @rule(count=st.integers(1, 4))
    def allocate(self, count: int) -> None:
        if count > self.pool.num_free:
            return
        blocks = self.pool.allocate(count)
        assert len(set(blocks)) == count
        assert not set(blocks) & self.in_use
        assert 0 not in blocks
        for block in blocks:
            self.content.pop(block, None)
        self.owners.append(blocks)

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def share(self, data: st.DataObject) -> None:
        blocks = data.draw(st.sampled_from(self.owners))
        self.pool.share(blocks)
        self.owners.append(list(blocks))

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.owners) - 1))
        self.pool.release(self.owners.pop(index))

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def register(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(sorted(self.in_use)))
        if block in self.content:
            return
        self.num_hashes += 1
        self.content[block] = self.num_hashes.to_bytes(4, "little")
        self.pool.register(block, self.content[block])

    @precondition(lambda self: self.content)
    @rule(data=st.data())
    def find_and_share(self, data: st.DataObject) -> None:
        block = data.draw(st.sampled_from(sorted(self.content)))
        assert self.pool.find(self.content[block]) == block
        self.pool.share([block])
        self.owners.append([block])

    @rule()
    def drop_cache(self) -> None:
        self.pool.drop_cache()
        self.content.clear()

    @invariant()
    def nothing_is_lost(self) -> None:
        self.pool.check_integrity(self.owners)
        assert self.pool.num_free == NUM_BLOCKS - 1 - len(self.in_use)
        assert all(self.pool.find(name) == block for block, name in self.content.items())
        assert self.pool.num_idle == len(self.content.keys() - self.in_use)


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_empty_blocks_are_taken_before_cached_ones() -> None:
    pool = BlockPool(5)
    first, second, *_ = blocks = pool.allocate(4)
    pool.register(first, b"first")
    pool.release(blocks)
    assert set(pool.allocate(3)) == set(blocks) - {first}
    assert pool.find(b"first") == first
    assert second not in pool.allocate(1)
    assert pool.find(b"first") is None


def test_tail_of_a_prefix_is_evicted_before_its_head() -> None:
    pool = BlockPool(4)
    blocks = pool.allocate(3)
    for index, block in enumerate(blocks):
        pool.register(block, bytes([index]))
    pool.release(blocks)
    pool.allocate(2)
    assert [pool.find(bytes([index])) is not None for index in range(3)] == [True, False, False]


def test_prefix_used_last_is_evicted_last() -> None:
    pool = BlockPool(3)
    old, new = pool.allocate(2)
    pool.register(old, b"old")
    pool.register(new, b"new")
    pool.release([old])
    pool.release([new])
    pool.share([old])
    pool.release([old])
    pool.allocate(1)
    assert pool.find(b"old") == old
    assert pool.find(b"new") is None


def test_states_tell_free_used_shared_and_cached_apart() -> None:
    pool = BlockPool(5)
    used, shared, cached = pool.allocate(3)
    pool.share([shared])
    pool.register(cached, b"x")
    pool.release([cached])
    states = pool.states()
    assert [states[used], states[shared], states[cached]] == [
        BLOCK_IN_USE,
        BLOCK_SHARED,
        BLOCK_CACHED,
    ]
    assert states.count(BLOCK_FREE) == 2


def test_pool_without_room_for_the_null_block_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 blocks"):
        BlockPool(1)


def test_integrity_check_finds_a_lost_block() -> None:
    pool = BlockPool(4)
    blocks = pool.allocate(2)
    with pytest.raises(AssertionError, match="reference counts"):
        pool.check_integrity([blocks[:1]])


def test_evictions_are_counted_and_a_dropped_cache_is_none() -> None:
    pool = BlockPool(4)
    first, second, third = pool.allocate(3)
    pool.register(first, b"a")
    pool.register(second, b"b")
    pool.release([first, second, third])
    pool.allocate(2)  # the empty block, then the older cached one
    assert pool.num_evicted == 1
    pool.drop_cache()
    pool.allocate(1)
    assert pool.num_evicted == 1
