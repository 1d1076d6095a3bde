"""What the runner knows of graphs: whether they took a step, and what they left of it.

The graphs themselves are in `step_graphs.py`, which only `build.py` imports.
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
    """What graphs leave of a step that they computed and sampled; valid until the next step."""

    rows_cpu: np.ndarray  # [S]
    sample: DeviceSample  # of a whole bucket; the first S lines are the step's
    delivered: HostTokens  # the S tokens
    is_masked: bool = False  # some rows were constrained


@dataclass(frozen=True, kw_only=True, slots=True)
class Unsampled:
    """What graphs leave of a step that they computed and cannot sample."""

    hidden: Tensor  # [S, E]
    rows: SampledRows


class Graphs(Protocol):
    """Runs the steps for which there are graphs."""

    def apply(self, plan: StepPlan) -> None:
        """Take note of a plan's changes; called for every plan."""
        ...

    def run(self, plan: StepPlan) -> Sampled | Unsampled | None:
        """Compute the step, if there is a graph for it, else return None. The plan has rows."""
        ...


class NoGraphs:
    """For a runner whose steps all run operation by operation."""

    def apply(self, plan: StepPlan) -> None:
        pass

    def run(self, plan: StepPlan) -> Sampled | Unsampled | None:
        return None
