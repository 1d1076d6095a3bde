from __future__ import annotations

import torch

from quire.kernels.reference.sampling_random import uniform, wrap_seed
from tests.unit.sampling.harness import assert_distributed

MASK = 2**64 - 1


def mixed(state: int) -> int:
    """SplitMix64's mixer in Python's own integers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def expected(seed: int, position: int) -> float:
    golden = 0x9E3779B97F4A7C15
    state = (mixed((seed + golden) & MASK) + (position + 1) * golden) & MASK
    return (mixed(state) >> 11) / 2**53


def test_numbers_are_splitmix64_of_seed_and_position() -> None:
    for seed in (0, 1, -1, 2**63 - 1, -(2**63), 2**64 - 1, 123456789):
        for position in (0, 1, 77, 10**6):
            got = uniform(torch.tensor([wrap_seed(seed)]), torch.tensor([position]))
            assert float(got) == expected(seed, position)


def test_mixer_agrees_with_the_published_sequence() -> None:
    golden = 0x9E3779B97F4A7C15  # first outputs of SplitMix64 seeded with 1234567
    outputs = [mixed((1234567 + (i + 1) * golden) & MASK) for i in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_numbers_are_uniform_over_seeds_and_over_positions() -> None:
    count = 40_000
    even = torch.full((64,), 1 / 64)
    counter, same = torch.arange(count), torch.full((count,), 5)
    for numbers in (uniform(counter, same), uniform(same, counter), uniform(-counter, counter)):
        assert numbers.min() >= 0.0 and numbers.max() < 1.0
        assert_distributed((numbers * 64).long(), even)


def test_neighbouring_seeds_and_positions_are_unrelated() -> None:
    counter = torch.arange(20_000)
    here = uniform(counter, counter)
    for other in (uniform(counter + 1, counter), uniform(counter, counter + 1)):
        correlation = torch.corrcoef(torch.stack([here, other]))[0, 1]
        assert abs(float(correlation)) < 0.03


def test_seeds_wrap_to_64_bits() -> None:
    assert wrap_seed(2**64 - 1) == -1
    assert wrap_seed(2**64 + 3) == 3
    assert wrap_seed(-(2**63)) == -(2**63)
