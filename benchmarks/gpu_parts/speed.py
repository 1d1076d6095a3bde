"""The unit that measures workloads on one model, and profiles those that fall short."""

from __future__ import annotations

import statistics
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from quire import LLM
from quire.bench.standard_workloads import Workload, standard_workload

from .ceilings import ModelCost, Rates, ceiling_s
from .engines import lighter, open_llm, run, run_workload
from .models import CONFIGS, max_model_len, write_model
from .records import Records
from .step_profile import look_at, windows_of
from .targets import Target, target_of
from .units import DoItem, Unit

PROFILE = "profile:"  # begins an item that profiles a workload's steps


@contextmanager
def speed_unit(unit: Unit, records: Records) -> Iterator[DoItem]:
    """Items are workloads, some with `PROFILE` before their names."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        started = time.perf_counter()
        model, options = unit.options["model"], unit.options
        llm = stack.enter_context(
            open_llm(
                write_model(Path(folder), model),
                **{"max_model_len": max_model_len(model), **options["engine"]},
            )
        )
        run(llm, [[5] * 64] * 2, [2, 2])
        phases = {name: round(s, 2) for name, s in llm.llm_engine.facts.phase_seconds.items()}
        print(
            f"{unit.name}: first tokens {time.perf_counter() - started:.1f} s after the start of "
            f"the engine; {phases}",
            flush=True,
        )
        yield _Speed(unit, llm, records).do


class _Speed:
    def __init__(self, unit: Unit, llm: LLM, records: Records) -> None:
        self._model: str = unit.options["model"]
        self._items = unit.items
        self._options = unit.options
        self._llm = llm
        self._records = records
        self._rates = Rates(**unit.options["rates"])
        self._cost = ModelCost.of(CONFIGS[self._model])

    def do(self, item: str) -> None:
        workload = standard_workload(
            item.removeprefix(PROFILE),
            scale=self._options["scale"],
            vocab_size=CONFIGS[self._model]["vocab_size"],
        )
        if item.startswith(PROFILE):
            self._profile(workload)
        else:
            self._measure(workload)

    def _measure(self, workload: Workload) -> None:
        target = target_of(self._model, workload.name)
        light = lighter(workload)
        run(self._llm, light.prompts, light.output_lens)
        seconds = [run_workload(self._llm, workload) for _ in range(self._options["repetitions"])]
        least = ceiling_s(self._cost, workload, self._rates)
        took = statistics.median(seconds)
        record = self._records.add(
            "speed", model=self._model, workload=workload.name,
            seconds=[round(one, 4) for one in seconds], unit_of_value=target.unit,
            value=target.value(workload, took), ceiling=target.value(workload, least),
            ceiling_s=least, ms_per_step=1000 * took / max(workload.output_lens),
        )  # fmt: skip
        print(_in_one_line(target, record), flush=True)
        is_asked = PROFILE + workload.name in self._items  # as an item of its own
        if self._options["profiles"] and not is_asked and _falls_short(target, record["value"]):
            self._try_profile(workload)

    def _try_profile(self, workload: Workload) -> None:
        """Profile; a failure does not lose the measured row."""
        try:
            self._profile(workload)
        except Exception as error:
            traceback.print_exc()
            print(f"no profile of {workload.name}: {error!r}", flush=True)

    def _profile(self, workload: Workload) -> None:
        for window in windows_of(workload.name):
            look = look_at(self._llm, workload, window)
            fields = {"model": self._model, "workload": workload.name}
            print(f"profile of {self._model}, {workload.name}, {window} steps:")
            if look.host is not None:
                self._records.add("host", **fields, us=look.host)
                print("\n".join(f"    {line}" for line in host_lines(look.host)), flush=True)
            if look.trace is None:
                raise RuntimeError(f"no trace of {window} steps: {look.problem}")
            self._records.add("profile", **fields, window=window, **look.trace.as_dict())
            print("\n".join(f"    {line}" for line in look.trace.lines()), flush=True)


def host_lines(host: dict[str, dict[str, float]]) -> list[str]:
    """The figures of `StepTimes.summary` as lines for a terminal."""
    return [
        "host time a step, us, median / mean / p99 (host: the core's thread without waits):",
        *(
            f"  {name:9}" + " / ".join(f"{value:8.1f}" for value in figures.values())
            for name, figures in host.items()
        ),
    ]


def _falls_short(target: Target, value: float) -> bool:
    return target.mark is not None and not target.reaches(value, target.mark)


def _in_one_line(target: Target, record: dict[str, Any]) -> str:
    spread = ", ".join(f"{one:.3f}" for one in record["seconds"])
    peer = "" if target.peer is None else f", peer {target.peer:,.6g}"
    goal = "" if target.goal is None else f", goal {target.goal:,.6g}"
    return (
        f"{target.model:14} {target.workload:10} {record['value']:,.6g} {target.unit} "
        f"(ceiling {record['ceiling']:,.6g}{peer}{goal}) [{spread} s]"
    )
