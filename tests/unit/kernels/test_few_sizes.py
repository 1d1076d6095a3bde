"""Few numbers stand for all sizes, none much larger than the size."""

from __future__ import annotations

from quire.kernels.cpu.few_sizes import padded, shortened


def test_sizes_are_padded_by_at_most_an_eighth() -> None:
    for size in range(1, 10_000):
        assert size <= padded(size) <= size + size // 8
        assert size > 16 or padded(size) == size


def test_few_numbers_stand_for_all_sizes() -> None:
    assert len({padded(size) for size in range(1, 2049)}) == 16 + 6 * 8 + 16


def test_a_padded_size_stands_for_itself() -> None:
    assert all(padded(padded(size)) == padded(size) for size in range(1, 10_000))


def test_a_shortened_size_is_the_padded_one_below() -> None:
    for size in range(1, 10_000):
        assert shortened(padded(size)) == padded(size)
        assert shortened(size) == size or padded(shortened(size) + 1) == padded(size) > size
