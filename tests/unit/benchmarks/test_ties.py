"""Rounding explains two tokens where tiny changes of the logits exchange them, and only there."""

from __future__ import annotations

import torch
from benchmarks.gpu_parts.ties import NOISES, noise_that_exchanges

from quire.request import RowSampling

GREEDY = RowSampling(temperature=0.0)


def test_the_best_two_of_a_greedy_row_are_exchanged_if_they_nearly_tie() -> None:
    logits = torch.tensor([1.0, 3.0, 3.0 - 2e-6, 2.9])
    assert noise_that_exchanges(logits, GREEDY, [1], [], (1, 2)) == NOISES[0]
    assert noise_that_exchanges(logits, GREEDY, [1], [], (1, 3)) is None


def test_what_a_row_asked_for_counts() -> None:
    logits = torch.tensor([1.0, 3.0, 1.5, 0.0])
    penalised = RowSampling(temperature=0.0, repetition_penalty=2.0)
    assert noise_that_exchanges(logits, penalised, [1], [3], (1, 2)) is not None
    assert noise_that_exchanges(logits, GREEDY, [1], [3], (1, 2)) is None


def test_neighbours_are_exchanged_where_the_random_number_falls_between_them() -> None:
    """With two equal tokens that is next to one half; no seed gives a token that has no weight."""
    seeds = range(400)
    logits = torch.tensor([0.0, 0.0, -200.0])
    explained = [
        seed
        for seed in seeds
        if noise_that_exchanges(logits, RowSampling(temperature=1.0, seed=seed), [1], [], (0, 1))
    ]
    assert len(explained) < 3
    assert noise_that_exchanges(logits, RowSampling(temperature=1.0), [1], [], (0, 2)) is None
