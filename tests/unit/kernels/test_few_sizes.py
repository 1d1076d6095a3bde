"""Few numbers stand for all sizes, none much larger than the size."""

from __future__ import annotations

from quire.kernels.cpu.few_sizes import padded


def test_sizes_are_padded_by_at_most_an_eighth() -> None:
    for size in range(1, 10_000):
        assert size <= padded(size) <= size + size // 8
        assert size > 16 or padded(size) == size


def test_few_numbers_stand_for_all_sizes() -> None:
    assert len({padded(size) for size in range(1, 2049)}) == 16 + 7 * 8


def test_a_padded_size_stands_for_itself() -> None:
    assert all(padded(padded(size)) == padded(size) for size in range(1, 10_000))
