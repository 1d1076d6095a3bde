"""What the runner knows of a step's graphs: whether they did it, and what they left.

The graphs themselves are `step_graphs.py`, which only `build.py` knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from quire.sampling.sampler import DeviceSample
from quire.step import StepPlan
from quire.worker.batch_builder import SampledRows
from quire.worker.pending import HostTokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """What the graphs of a step leave on the device, until the next step."""

    rows_cpu: np.ndarray  # [S]
    sample: DeviceSample  # of a bucket: its first S lines are the step's
    delivered: HostTokens  # the S tokens
    is_masked: bool = False  # some of the rows are constrained


@dataclass(frozen=True, kw_only=True, slots=True)
class Unsampled:
    """The same of a step whose rows no graph can sample."""

    hidden: Tensor  # [S, E]
    rows: SampledRows


class Graphs(Protocol):
    """Runs the steps for which there are graphs."""

    def apply(self, plan: StepPlan) -> None:
        """Follow the changes of every plan."""
        ...

    def run(self, plan: StepPlan) -> Sampled | Unsampled | None:
        """None where the plan is not for this. The plan must have rows."""
        ...


class NoGraphs:
    """Every step is computed op by op."""

    def apply(self, plan: StepPlan) -> None:
        pass

    def run(self, plan: StepPlan) -> Sampled | Unsampled | None:
        return None
