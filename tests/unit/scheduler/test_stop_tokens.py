"""StopTokens: every row stops at its own, however many, and one with many slows no other."""

from __future__ import annotations

import random

import numpy as np
import pytest

from quire.scheduler.stop_tokens import StopTokens


@pytest.mark.parametrize("lengths", [(0, 1, 2), (8, 9, 0), (300, 3, 1000)], ids=str)
def test_rows_stop_at_their_own_tokens_alone(lengths: tuple[int, ...]) -> None:
    stops, draw = StopTokens(len(lengths) + 1), random.Random(0)
    owned = {row: draw.sample(range(2000), length) for row, length in enumerate(lengths)}
    for row, token_ids in owned.items():
        stops.join(row, tuple(token_ids))
    rows = np.array([2, 0, 1])
    found = stops.of(rows)
    for _ in range(300):
        tokens = [draw.choice([*owned[row], draw.randrange(2000)]) for row in rows.tolist()]
        is_stop = [token in owned[row] for token, row in zip(tokens, rows.tolist(), strict=True)]
        assert found.among(np.array(tokens, dtype=np.int32)).tolist() == is_stop


@pytest.mark.parametrize(("before", "after"), [(500, 0), (500, 2), (3, 1), (0, 500)])
def test_a_row_forgets_the_stops_of_its_former_owner(before: int, after: int) -> None:
    stops = StopTokens(2)
    stops.join(0, tuple(range(before)))
    stops.leave(0)
    stops.join(0, tuple(range(1000, 1000 + after)))
    rows = np.array([0])
    assert not any(stops.of(rows).among(np.array([token]))[0] for token in range(before))
    assert all(stops.of(rows).among(np.array([1000 + i]))[0] for i in range(after))


def test_one_row_with_many_does_not_make_every_row_compare_as_many() -> None:
    stops = StopTokens(4)
    stops.join(0, tuple(range(20_000)))
    stops.join(1, (5, 6))
    stops.leave(0)
    found = stops.of(np.array([1, 2]))
    assert len(found.few) <= 8
    assert found.many == ()
