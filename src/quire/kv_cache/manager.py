"""KV cache manager: blocks for block tables, one per layer group, shared where prefixes agree.

Knows token counts and hashes, not requests, rows or tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from quire.kv_cache.block_pool import BlockPool
from quire.kv_layout import NULL_BLOCK


@dataclass(slots=True)
class BlockTable:
    """The blocks of one completion for each layer group; block ``i`` holds the positions from
    ``i * block_size`` on. All groups have equally many entries; those behind a window are the null
    block."""

    groups: tuple[list[int], ...]
    num_registered: int = 0  # leading blocks whose hashes were offered to the pool
    num_passed: list[int] = field(default_factory=list)  # per group: leading blocks given back

    def __len__(self) -> int:
        return len(self.groups[0])

    @property
    def is_empty(self) -> bool:
        return not self.groups[0]


@dataclass(frozen=True, slots=True)
class Growth:
    """How a table has grown: its new entries, and blocks to copy before they are written."""

    first: int  # index of the first entry that changed
    copies: list[tuple[int, int]]  # (source, target)


class KVCacheManager:
    """Gives blocks to block tables and takes them back.

    Invariant (``check_integrity``): a block's reference count is the number of tables it stands in.
    A table may be written at a position only after ``grow`` covered it; ``grow`` replaces a shared
    block there by a copy of its own (copy-on-write).
    """

    def __init__(
        self,
        *,
        num_blocks: int,
        block_size: int,
        windows: tuple[int | None, ...] = (None,),
        enable_prefix_caching: bool = True,
    ) -> None:
        self.block_size = block_size
        self.pool = BlockPool(num_blocks)
        self.enable_prefix_caching = enable_prefix_caching
        self._windows = windows
        self._groups_with_window = [i for i, window in enumerate(windows) if window is not None]
        self._groups_without_window = [i for i, window in enumerate(windows) if window is None]

    @property
    def num_groups(self) -> int:
        return len(self._windows)

    @property
    def has_windows(self) -> bool:
        """Whether a group has a window, so that `release_passed` may give blocks back."""
        return bool(self._groups_with_window)

    def new_table(self) -> BlockTable:
        return BlockTable(
            groups=tuple([] for _ in self._windows), num_passed=[0] * len(self._windows)
        )

    def num_blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def find_prefix(self, hashes: list[bytes], max_tokens: int) -> BlockTable:
        """The longest cached prefix of at most ``max_tokens`` tokens; `adopt` makes it owned.

        A group with a window needs only the blocks that the next token can still see. Takes one
        pass over the hashes per group, less where a group without a window knows few of them.
        """
        length = min(len(hashes), max_tokens // self.block_size)
        if not self.enable_prefix_caching or not length:
            return self.new_table()
        found: dict[int, list[int]] = {}
        for group in self._groups_without_window:
            found[group] = self._leading(group, hashes[:length])
            length = len(found[group])
        lengths: set[int] | None = None  # prefixes, in blocks, that all groups with a window know
        for group in self._groups_with_window:
            found[group], usable = self._in_window(group, hashes[:length])
            lengths = usable if lengths is None else lengths & usable
        length = length if lengths is None else max(lengths, default=0)
        passed = [self._num_passed(group, length * self.block_size) for group in range(len(found))]
        blocks = tuple(
            [NULL_BLOCK] * num_passed + found[group][num_passed:length]
            for group, num_passed in enumerate(passed)
        )
        return BlockTable(groups=blocks, num_registered=length, num_passed=passed)

    def names_behind(self, table: BlockTable, hashes: list[bytes]) -> tuple[bytes, ...]:
        """The names of the block after ``table`` that the pool does not know; until it knows them,
        `find_prefix` finds no more than ``table``."""
        if not self.enable_prefix_caching or len(table) == len(hashes):
            return ()
        following = hashes[len(table)]
        names = (_group_key(following, group) for group in range(len(table.groups)))
        return tuple(name for name in names if self.pool.find(name) is None)

    def _leading(self, group: int, hashes: list[bytes]) -> list[int]:
        """The known blocks before the first unknown one."""
        blocks: list[int] = []
        for name in hashes:
            block = self.pool.find(_group_key(name, group))
            if block is None:
                break
            blocks.append(block)
        return blocks

    def _in_window(self, group: int, hashes: list[bytes]) -> tuple[list[int], set[int]]:
        """(the known blocks, the lengths of prefixes all of whose last window is known)."""
        blocks: list[int] = []
        usable: set[int] = set()
        run = 0  # where the run of known blocks that ends here began
        for end, name in enumerate(hashes, start=1):
            block = self.pool.find(_group_key(name, group))
            if block is None:
                run = end
            blocks.append(NULL_BLOCK if block is None else block)
            if run <= self._num_passed(group, end * self.block_size):
                usable.add(end)
        return blocks, usable

    def adopt(self, table: BlockTable) -> None:
        """Make ``table``, which `find_prefix` returned, an owner of its blocks."""
        for entries in table.groups:
            self.pool.share(entries)

    def fork(self, parent: BlockTable, num_tokens: int) -> BlockTable:
        """A table that shares the blocks of the first ``num_tokens`` tokens with ``parent``."""
        length = self.num_blocks_for(num_tokens)
        child = BlockTable(
            groups=tuple(entries[:length] for entries in parent.groups),
            num_registered=min(parent.num_registered, num_tokens // self.block_size),
            num_passed=[min(passed, length) for passed in parent.num_passed],
        )
        self.adopt(child)
        return child

    def grow(self, table: BlockTable, start: int, end: int) -> Growth | None:
        """Make positions ``start`` to ``end`` writable; None, and nothing is changed, if there are
        too few free blocks."""
        new = max(0, self.num_blocks_for(end) - len(table))
        tail = start // self.block_size
        shared = [
            (group, index)
            for group, entries in enumerate(table.groups)
            for index in range(tail, len(entries))
            if self.pool.is_shared(entries[index])
        ]
        if new * len(table.groups) + len(shared) > self.pool.num_free:
            return None
        first = min([len(table), *(index for _, index in shared)])
        copies = []
        for group, index in shared:
            source = table.groups[group][index]
            (target,) = self.pool.allocate(1)
            self.pool.release([source])
            table.groups[group][index] = target
            copies.append((source, target))
        for entries in table.groups:
            entries.extend(self.pool.allocate(new))
        return Growth(first, copies)

    def extend(self, tables: Sequence[BlockTable]) -> list[list[int]]:
        """Append a block to each of ``tables``; returns the new blocks per group. There must be
        enough free ones."""
        new = [self.pool.allocate(len(tables)) for _ in self._windows]
        for group, blocks in enumerate(new):
            for table, block in zip(tables, blocks, strict=True):
                table.groups[group].append(block)
        return new

    def can_adopt_and_grow(self, table: BlockTable, end: int, step: int) -> bool:
        """Whether ``adopt(table)`` and then ``grow`` to ``end`` tokens would succeed, with up to
        ``step`` tokens at a time, between which windows move and give blocks back."""
        wanted = max(0, self.num_blocks_for(end) - len(table))
        new = sum(
            wanted if window is None else min(wanted, self.num_blocks_for(window + step) + 1)
            for window in self._windows
        )
        revived = sum(self.pool.num_free_among(entries) for entries in table.groups)
        return new + revived <= self.pool.num_free

    def release_passed(self, table: BlockTable, num_computed: int) -> None:
        """Give back the blocks that no token from position ``num_computed`` on can see."""
        for group in self._groups_with_window:
            entries = table.groups[group]
            first, last = table.num_passed[group], self._num_passed(group, num_computed)
            if last > first:
                self.pool.release(entries[first:last])
                entries[first:last] = [NULL_BLOCK] * (last - first)
                table.num_passed[group] = last

    def register(self, table: BlockTable, hashes: list[bytes], num_blocks: int) -> None:
        """Make the first ``num_blocks`` blocks findable by hash. They are full, and their keys and
        values exist or are being computed."""
        if not self.enable_prefix_caching:
            return
        for index in range(table.num_registered, num_blocks):
            for group, entries in enumerate(table.groups):
                self.pool.register(entries[index], _group_key(hashes[index], group))
        table.num_registered = max(table.num_registered, num_blocks)

    def release(self, table: BlockTable) -> None:
        """Take all blocks back; the table is empty afterwards."""
        for entries in table.groups:
            self.pool.release(entries)
            entries.clear()
        table.num_registered = 0
        table.num_passed = [0] * len(table.groups)

    def check_integrity(self, tables: list[BlockTable]) -> None:
        """Assert that exactly ``tables`` own blocks, and that each is well formed."""
        for table in tables:
            assert len({len(entries) for entries in table.groups}) == 1, "groups differ in length"
            for entries, passed in zip(table.groups, table.num_passed, strict=True):
                assert NULL_BLOCK not in entries[passed:], "a hole inside the window"
                assert set(entries[:passed]) <= {NULL_BLOCK}, "a block behind the window is kept"
        self.pool.check_integrity(entries for table in tables for entries in table.groups)

    def _num_passed(self, group: int, num_computed: int) -> int:
        """How many leading blocks no token from position ``num_computed`` on can see."""
        window = self._windows[group]
        return 0 if window is None else max(0, num_computed - window + 1) // self.block_size


def _group_key(block_hash: bytes, group: int) -> bytes:
    return block_hash + group.to_bytes(2, "little")
