"""When the requests of a measurement are sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrivals:
    """Random arrivals at a rate; burstiness 1 is a Poisson process, more is more even."""

    rate: float = math.inf  # requests a second; inf: all at once
    burstiness: float = 1.0
    ramp_up: str | None = None  # instead of the rate: a name of `RAMPS`
    start_rate: float = 0.0
    end_rate: float = 0.0

    def __post_init__(self) -> None:
        if not self.rate > 0 or not 0 < self.burstiness < math.inf:
            raise ValueError(
                f"the request rate {self.rate} and the burstiness {self.burstiness} must be above 0"
            )
        if self.ramp_up is None:
            if self.start_rate or self.end_rate:
                raise ValueError(
                    "--ramp-up-start-rps and --ramp-up-end-rps need a ramp between them; choose it "
                    f"with --ramp-up-strategy {' or '.join(RAMPS)}"
                )
            if self.burstiness != 1.0 and self.rate == math.inf:
                raise ValueError(
                    f"--burstiness {self.burstiness} has no effect without a rate, since all "
                    "requests are sent at once; give --request-rate, or leave it out"
                )
            return
        if self.rate != math.inf:
            raise ValueError(
                "--request-rate is a constant rate and --ramp-up-strategy a rising one; give only "
                "one of them"
            )
        if not 0 < self.start_rate <= self.end_rate < math.inf:
            raise ValueError(
                f"the rate cannot rise from {self.start_rate} to {self.end_rate} requests a "
                "second; give --ramp-up-start-rps above 0 and --ramp-up-end-rps no smaller"
            )

    def seconds(self, count: int, seed: int) -> list[float]:
        """When each of ``count`` requests is sent, from the start on."""
        rates = self._rates(count)
        if math.inf in rates:
            return [0.0] * count
        random = np.random.default_rng(seed)
        scales = 1.0 / (np.array(rates) * self.burstiness)
        when = np.cumsum(random.gamma(self.burstiness, scales))
        if self.ramp_up is None and count:
            when *= count / self.rate / when[-1]  # the rate as asked, however few requests
        return [float(one) for one in when]

    def _rates(self, count: int) -> list[float]:
        if self.ramp_up is None:
            return [self.rate] * count
        ramp = RAMPS[self.ramp_up]
        shares = (index / max(1, count - 1) for index in range(count))
        return [ramp(self.start_rate, self.end_rate, share) for share in shares]


Ramp = Callable[[float, float, float], float]  # first rate, last rate, share of the way
RAMPS: Mapping[str, Ramp] = {
    "linear": lambda first, last, share: first + (last - first) * share,
    "exponential": lambda first, last, share: first * (last / first) ** share,
}
