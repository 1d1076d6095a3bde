"""The unit that measures which share of a layer's experts a decode step touches.

Runs without graphs and on the first layers only, since reading the routing waits for the device.
The weights are dummies, so the routing is that of random router weights.
"""

from __future__ import annotations

import gc
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from quire.bench.standard_workloads import standard_workload
from quire.layers.moe import MoE

from .ceilings import ModelCost
from .engines import Stepper, open_llm
from .models import CONFIGS, max_model_len, write_model
from .records import Records
from .units import DoItem, Unit

NUM_LAYERS = 8
NUM_STEPS = 12


@dataclass(slots=True)
class Touched:
    """Number of tokens of a step -> shares of a layer's experts that such steps touched."""

    shares: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, num_tokens: int, share: float) -> None:
        self.shares[num_tokens].append(share)


@contextmanager
def watched_routing() -> Iterator[Touched]:
    """Record the routing of every mixture of experts in this process."""
    touched = Touched()
    with ExitStack() as stack:
        for moe in [one for one in gc.get_objects() if type(one) is MoE]:
            stack.enter_context(patch.object(moe, "route", _watched(moe, touched)))
        yield touched


def _watched(moe: MoE, touched: Touched) -> Any:
    route = moe.route

    def wrapper(logits: Any) -> Any:
        routing = route(logits)
        num_touched = routing.experts.unique().numel()
        touched.add(logits.shape[0], num_touched / logits.shape[1])
        return routing

    return wrapper


@contextmanager
def experts_unit(unit: Unit, records: Records) -> Iterator[DoItem]:
    """Items are decode workloads."""
    model: str = unit.options["model"]
    config = CONFIGS[model]
    num_layers = min(NUM_LAYERS, config["num_hidden_layers"])
    options = {
        "max_model_len": max_model_len(model),
        "enforce_eager": True,
        "hf_overrides": {"num_hidden_layers": num_layers},
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        open_llm(write_model(Path(folder), model), **{**options, **unit.options["engine"]}) as llm,
    ):

        def do(item: str) -> None:
            workload = standard_workload(
                item, scale=unit.options["scale"], vocab_size=config["vocab_size"]
            )
            num_rows = len(workload.prompts)
            stepper = Stepper(llm.llm_engine, workload)
            stepper.start()
            try:
                stepper.skip_prompts()
                with watched_routing() as touched:
                    stepper.steps(NUM_STEPS)
            finally:
                stepper.stop()
            shares = touched.shares[num_rows]
            if not shares:
                raise RuntimeError(
                    f"there was no step of {num_rows} tokens, only of {sorted(touched.shares)}"
                )
            even = ModelCost.of(config).share_of_experts(num_rows)
            mean, low, high = sum(shares) / len(shares), min(shares), max(shares)
            records.add(
                "experts", model=model, workload=item, num_rows=num_rows, mean=round(mean, 4),
                low=round(low, 4), high=round(high, 4), if_even=round(even, 4),
                num_layers=num_layers, num_steps=len(shares) // num_layers,
            )  # fmt: skip
            print(
                f"{model}, {item}: a step touches {mean:.1%} of a layer's experts (from {low:.1%} "
                f"to {high:.1%}; routed evenly {even:.1%}), {num_layers} layers",
                flush=True,
            )

        yield do
