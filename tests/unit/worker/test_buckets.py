"""Buckets: every step that may take a graph finds one that is little larger than itself."""

from __future__ import annotations

import itertools

import pytest

from quire.worker.buckets import GraphSizes, row_buckets

LARGE = 400e6  # bytes of a layer, of a model of 8 billion weights
SMALL = 43e6  # of one of 0.6 billion


def sizes(max_rows: int = 256, max_tokens: int = 8192, layer_bytes: float = LARGE) -> GraphSizes:
    return GraphSizes.of(max_rows=max_rows, max_tokens=max_tokens, layer_bytes=layer_bytes)


@pytest.mark.parametrize("max_rows", [1, 2, 3, 31, 32, 33, 100, 256, 1000, 1024])
def test_row_buckets_reach_the_limit_and_waste_little(max_rows: int) -> None:
    buckets = row_buckets(max_rows)
    assert buckets[0] == 1
    assert buckets[-1] == max_rows
    assert list(buckets) == sorted(set(buckets))
    for smaller, larger in itertools.pairwise(buckets):
        assert larger <= max(2 * smaller, smaller + 32)
        assert smaller < 128 or larger <= smaller * 1.25


def test_a_step_takes_the_smallest_bucket_that_holds_it() -> None:
    found = sizes()
    assert [found.row_bucket(n) for n in (0, 1, 3, 32, 33, 256)] == [1, 1, 4, 32, 64, 256]
    assert [found.token_bucket(n) for n in (1, 16, 17, 2048, 2049)] == [16, 16, 32, 2048, None]


def test_no_bucket_is_larger_than_the_largest_step() -> None:
    assert sizes(max_tokens=100).tokens == (16, 32, 64, 96)
    assert sizes(max_tokens=8).tokens == ()
    assert sizes(max_tokens=8).token_bucket(1) is None
    assert sizes(max_rows=300, max_tokens=8).max_tokens == 300


@pytest.mark.parametrize(
    ("max_tokens", "layer_bytes", "largest"),
    [
        (8192, SMALL, [1920, 2048, 8192]),
        (5000, SMALL, [1920, 2048, 5000]),
        (2048, SMALL, [1792, 1920, 2048]),
        (2000, SMALL, [1664, 1792, 1920]),
        (16_384, SMALL, [1792, 1920, 2048]),
        (8192, 2 * SMALL, [1792, 1920, 2048]),
        (4096, 2 * SMALL, [1920, 2048, 4096]),
        (8192, LARGE, [1792, 1920, 2048]),
    ],
)
def test_models_have_a_bucket_of_full_steps_where_launching_takes_longer(
    max_tokens: int, layer_bytes: float, largest: list[int]
) -> None:
    found = sizes(max_tokens=max_tokens, layer_bytes=layer_bytes).tokens
    assert list(found[-len(largest) :]) == largest


def test_a_step_that_is_far_from_full_does_not_take_the_bucket_of_full_ones() -> None:
    found = sizes(layer_bytes=SMALL)
    assert [found.token_bucket(n) for n in (2048, 2049, 6143, 6144, 8192)] == [
        *(2048, None, None, 8192, 8192)
    ]


def test_the_largest_mixed_bucket_is_captured_first_of_all() -> None:
    found = sizes()
    assert found.tokens_at_start[-1] == found.tokens[-1] == 2048
    assert set(found.tokens_at_start) < set(found.tokens)


def test_rows_of_a_mixed_bucket_are_as_many_as_a_step_can_have() -> None:
    assert [sizes().rows_of(tokens) for tokens in (16, 256, 2048)] == [16, 256, 256]


def test_padding_is_never_much_where_tokens_cost_time() -> None:
    for smaller, larger in itertools.pairwise(sizes().tokens):
        assert smaller < 256 or larger - smaller <= 128


def test_some_of_each_kind_has_the_ends_and_the_middle() -> None:
    found = sizes()
    some = found.some_of_each_kind()
    assert some.rows[0] == 1 and some.rows[-1] == 256 and len(some.rows) == 3
    assert some.tokens == (found.tokens[0], found.tokens[-1])
    least = GraphSizes(rows=(1,), tokens=())
    assert least.some_of_each_kind() == least
