"""The command: reads the command line, runs the units one after the other, reports the results."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from .models import CONFIGS
from .plan import DEFAULT_PARTS, MODELS, PARTS, Choices, plan, planned_rows
from .records import FAILED, Record, Records, of_kind
from .report import Row, full_text, machine_line, speed_rows, start_rows, text_table, write_results
from .units import Budget, DoItem, OpenUnit, Unit, run_items, run_unit

UNIT_KINDS = {
    "rates": "command:rates_unit",
    "speed": "speed:speed_unit",
    "checks": "checks:checks_unit",
    "experts": "experts:experts_unit",
    "startup": "startup:startup_unit",
    "features": "features:features_unit",
    "soak": "soak:soak_unit",
}
RESERVE_S = 5.0  # for the report


def main(script: str, description: str) -> int:
    arguments = _parser(description).parse_args()
    if arguments.unit is not None:
        unit = Unit.from_json(arguments.unit)
        records = Records(Path(arguments.records))
        return run_items(unit, _opener(unit.kind), records, Budget(arguments.deadline))
    started = time.time()
    budget = Budget(started + 60 * arguments.max_minutes - RESERVE_S)
    with tempfile.TemporaryDirectory() as folder:
        path = (arguments.output or Path(folder)) / "records.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        records = Records(path)
        run_all(script, _choices(arguments), records, budget, arguments.output)
        is_bad = any(one["kind"] == FAILED or one.get("passed") is False for one in records.read())
    print(f"\n{time.time() - started:.0f} s")
    return int(is_bad)


def run_all(
    script: str, choices: Choices, records: Records, budget: Budget, output: Path | None
) -> None:
    """Run every unit that time allows; results are written after each, so that none is lost."""
    rates = Unit(name="rates", kind="rates", items=("rates",), options={"engine": choices.engine})
    run_unit(script, rates, records, budget)
    measured = of_kind(records.read(), "rates")
    machine: dict[str, Any] = measured[0]["machine"] if measured else {"rates": "not measured"}
    if measured:
        choices = replace(choices, rates=measured[0]["rates"])
    else:
        print("rates could not be measured: ceilings and speed are left out", flush=True)
        choices = replace(choices, parts=tuple({*choices.parts} - {"speed", "profile"}))
    planned = planned_rows(choices) if "speed" in choices.parts else []
    rows: list[Row] = []
    for unit in plan(choices):
        print(f"\n-- {unit.name} ({budget.left_s:.0f} s left)", flush=True)
        run_unit(script, unit, records, budget)
        rows = [*speed_rows(records.read(), planned), *start_rows(records.read())]
        if output is not None:
            write_results(output, machine, records.read(), rows)
    print(f"\n{machine_line(machine)}\n")
    print(full_text(records.read(), rows, text_table(rows) if rows else ""), flush=True)
    if output is not None:
        print(f"\nwritten: {output}")


@contextmanager
def rates_unit(unit: Unit, records: Records) -> Iterator[DoItem]:
    """Measure the rates from which the ceilings are computed."""
    from .ceilings import measure_rates

    def do(item: str) -> None:
        device = unit.options["engine"].get("device", "cuda")
        rates = measure_rates(device)
        print(f"reads {rates.read_bytes / 1e12:.3f} TB/s, {rates.flop / 1e12:.0f} TFLOP/s of bf16")
        records.add("rates", rates=asdict(rates), machine=_machine(device, rates.read_bytes))

    yield do


def _machine(device: str, read_bytes: float) -> Record:
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"
    return {
        "device": name,
        "torch": torch.__version__,
        "CUDA": str(torch.version.cuda),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "reads TB/s": round(read_bytes / 1e12, 3),
        "date": time.strftime("%Y-%m-%d"),
    }


def _opener(kind: str) -> OpenUnit:
    """The function of a kind of unit, imported by name, so that a unit imports only its own."""
    module, _, function = UNIT_KINDS[kind].partition(":")
    opener: OpenUnit = getattr(importlib.import_module(f".{module}", __package__), function)
    return opener


def _choices(arguments: argparse.Namespace) -> Choices:
    return Choices(
        models=tuple(arguments.models),
        workloads=tuple(arguments.workloads),
        parts=tuple(arguments.only or DEFAULT_PARTS),
        repetitions=arguments.repetitions,
        scale=arguments.scale,
        minutes=arguments.minutes,
        profiles=not arguments.no_profile,
        engine=arguments.options,
    )


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, choices=list(CONFIGS))
    parser.add_argument(
        "--workloads", nargs="+", default=(), metavar="NAME", help="default: all of a model's rows"
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, help=f"parts; default: {' '.join(DEFAULT_PARTS)}"
    )
    parser.add_argument(
        "--max-minutes", type=float, default=9.0, help="skip the rest then; default 9"
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="of the soak; default 5")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of all lengths; default 1")
    parser.add_argument(
        "--no-profile", action="store_true", help="no profiles of rows that fall short"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="results.json, .md and .png")
    parser.add_argument("--options", type=json.loads, default={}, help="engine arguments, as JSON")
    parser.add_argument("--unit", help=argparse.SUPPRESS)
    parser.add_argument("--records", help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)
    return parser
