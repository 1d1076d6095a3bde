"""Block pool: which KV blocks are free, shared or cached. Knows nothing about requests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from quire.kv_layout import NULL_BLOCK

BLOCK_FREE, BLOCK_IN_USE, BLOCK_SHARED, BLOCK_CACHED = range(4)


class BlockPool:
    """Blocks with reference counts; free blocks that hold a known prefix can still be found.

    ::

        ref_count > 1    shared
        ref_count = 1    in use
        ref_count = 0    free: [ empty ... | cached, oldest ... newest ]
                          allocate() takes from this end, so cached blocks are evicted last,
                          the one that was released longest ago first
    """

    def __init__(self, num_blocks: int) -> None:
        if num_blocks < 2:
            raise ValueError(
                f"the KV cache needs at least 2 blocks (one is the null block), got {num_blocks}"
            )
        self.num_blocks = num_blocks
        self._ref_counts = [0] * num_blocks
        self._hashes: list[bytes | None] = [None] * num_blocks
        self._cached: dict[bytes, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_blocks))
        self.num_shared = 0  # blocks with more than one owner
        self.num_idle = 0  # free blocks that hold a known prefix
        self.num_evicted = 0  # cached blocks handed out for other content since the start

    @property
    def is_unused(self) -> bool:
        """Whether no block has an owner."""
        return self.num_free == self.num_blocks - 1  # the null block

    @property
    def num_free(self) -> int:
        """Blocks that ``allocate`` can hand out, cached ones included."""
        return len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Take ``count`` free blocks, evicting cached ones when no empty one is left."""
        assert count <= len(self._free), "the caller checks num_free"
        taken = [self._free.popitem(last=False)[0] for _ in range(count)]
        num_cached = len(self._cached)
        for block in taken:
            self._forget(block)
            self._ref_counts[block] = 1
        self.num_evicted += num_cached - len(self._cached)
        return taken

    def find(self, block_hash: bytes) -> int | None:
        """The block that holds this prefix, if one does."""
        return self._cached.get(block_hash)

    def share(self, blocks: Iterable[int]) -> None:
        """Add an owner to each block; a free cached block comes into use again."""
        for block in blocks:
            if block == NULL_BLOCK:
                continue
            owners = self._ref_counts[block]
            if owners == 0:
                del self._free[block]
                self.num_idle -= self._hashes[block] is not None
            self.num_shared += owners == 1
            self._ref_counts[block] = owners + 1

    def release(self, blocks: Sequence[int]) -> None:
        """Take one owner from each block, from the last to the first, so that the head of a prefix
        is evicted after its tail."""
        for block in reversed(blocks):
            if block == NULL_BLOCK:
                continue
            owners = self._ref_counts[block] - 1
            self._ref_counts[block] = owners
            self.num_shared -= owners == 1
            if owners == 0:
                self._free[block] = None
                if self._hashes[block] is None:
                    self._free.move_to_end(block, last=False)
                else:
                    self.num_idle += 1

    def is_shared(self, block: int) -> bool:
        return self._ref_counts[block] > 1

    def num_free_among(self, blocks: Iterable[int]) -> int:
        """How many of ``blocks`` would leave the free list if they were shared now."""
        return sum(block != NULL_BLOCK and self._ref_counts[block] == 0 for block in blocks)

    def register(self, block: int, block_hash: bytes) -> None:
        """Make a block findable by its hash. If another block has this hash, nothing is done."""
        if block != NULL_BLOCK and self._hashes[block] is None and block_hash not in self._cached:
            self._hashes[block] = block_hash
            self._cached[block_hash] = block

    def drop_cache(self) -> None:
        """Forget every prefix; blocks in use stay in use."""
        for block in sorted(self._cached.values(), reverse=True):
            self._forget(block)
            if block in self._free:  # to be taken next: its memory was used, so it is mapped
                self._free.move_to_end(block, last=False)

    def states(self) -> bytes:
        """One byte per block, ``BLOCK_*``, for the block map."""
        return bytes(map(self._state, range(self.num_blocks)))

    def _state(self, block: int) -> int:
        if self._ref_counts[block] > 1:
            return BLOCK_SHARED
        if self._ref_counts[block] == 1:
            return BLOCK_IN_USE
        return BLOCK_FREE if self._hashes[block] is None else BLOCK_CACHED

    def _forget(self, block: int) -> None:
        block_hash = self._hashes[block]
        if block_hash is not None:
            self._hashes[block] = None
            del self._cached[block_hash]
            self.num_idle -= self._ref_counts[block] == 0

    def check_integrity(self, owners: Iterable[Iterable[int]]) -> None:
        """Assert that counts match ``owners`` (each an iterable of blocks) and nothing is lost."""
        expected = [0] * self.num_blocks
        for blocks in owners:
            for block in blocks:
                expected[block] += block != NULL_BLOCK
        assert expected == self._ref_counts, "reference counts differ from the owners' block tables"
        free = {block for block in range(1, self.num_blocks) if self._ref_counts[block] == 0}
        assert free == set(self._free), "the free list differs from the blocks without owner"
        hashed = {h: block for block, h in enumerate(self._hashes) if h is not None}
        assert hashed == self._cached, "the prefix index differs from the blocks' hashes"
        states = self.states()
        counted = (states.count(BLOCK_SHARED), states.count(BLOCK_CACHED))
        assert counted == (self.num_shared, self.num_idle), "a count differs from the blocks"
