from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from quire.bench.serving.arrivals import Arrivals


def gaps(arrivals: Arrivals, count: int = 4000) -> np.ndarray:
    return np.diff(np.array([0.0, *arrivals.seconds(count, seed=1)]))


def test_without_a_rate_all_come_at_once() -> None:
    assert Arrivals().seconds(3, seed=0) == [0.0, 0.0, 0.0]


def test_the_rate_is_exact_and_arrivals_are_random() -> None:
    arrivals = Arrivals(rate=4.0)
    when = arrivals.seconds(100, seed=1)
    assert when[-1] == pytest.approx(25.0)
    assert when == sorted(when) == arrivals.seconds(100, seed=1)
    assert when != arrivals.seconds(100, seed=2)


@pytest.mark.parametrize("burstiness", [0.5, 1.0, 4.0])
def test_burstiness_is_the_shape_of_the_gaps(burstiness: float) -> None:
    """Of a gamma distribution: variance over squared mean is one over the shape."""
    found = gaps(Arrivals(rate=10.0, burstiness=burstiness))
    assert found.mean() == pytest.approx(0.1, rel=1e-9)
    assert found.var() / found.mean() ** 2 == pytest.approx(1 / burstiness, rel=0.1)


@pytest.mark.parametrize(("kind", "middle"), [("linear", 50.5), ("exponential", 10.0)])
def test_the_rate_rises(kind: str, middle: float) -> None:
    found = gaps(Arrivals(ramp_up=kind, start_rate=1.0, end_rate=100.0), 30_001)
    assert 1 / found[:300].mean() == pytest.approx(1.0, rel=0.6)
    assert 1 / found[14_500:15_500].mean() == pytest.approx(middle, rel=0.15)
    assert 1 / found[-300:].mean() == pytest.approx(100.0, rel=0.2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rate": 0.0}, "must be above 0"),
        ({"rate": math.nan}, "must be above 0"),
        ({"burstiness": 0.0}, "must be above 0"),
        ({"burstiness": 0.3}, "--burstiness 0.3 has no effect without a rate"),
        ({"ramp_up": "linear", "rate": 4.0}, "give only one of them"),
        ({"ramp_up": "linear", "start_rate": 5.0, "end_rate": 4.0}, "cannot rise from 5.0 to 4.0"),
        ({"ramp_up": "linear", "end_rate": 4.0}, "cannot rise from 0.0"),
    ],
)
def test_wrong_rates_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Arrivals(**fields)
