"""Seconds from starting a process until the engine is ready, and until its first token.

Each measurement is a process of its own. Before a cold one the model's files are dropped from the
operating system's cache; a warm one finds them there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quire.bench.report import add_output_flag, percentiles, write_json
from quire.child_process import python_command
from quire.cli.engine_flags import add_engine_flags, engine_args, open_llm, set_up_log
from quire.cli.parser import at_least
from quire.cli.remote_flags import refuse_served_name

CHILD = "--measure-this-process"

# Instead of `python -m quire`, which would look for imports in the current folder first.
_MAIN = "from quire.cli import main; sys.exit(main())"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num-iters-cold", metavar="N", type=at_least(0), default=3, help="cold starts; default 3"
    )
    parser.add_argument(
        "--num-iters-warmup",
        metavar="N",
        type=at_least(0),
        default=1,
        help="warm starts first that do not count; default 1",
    )
    parser.add_argument(
        "--num-iters-warm", metavar="N", type=at_least(0), default=3, help="warm starts; default 3"
    )
    add_output_flag(parser)
    parser.add_argument(CHILD, type=float, metavar="STARTED", help=argparse.SUPPRESS)
    add_engine_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    refuse_served_name(arguments)
    if arguments.measure_this_process is not None:
        print(json.dumps(_measure_here(arguments)))
        return 0
    set_up_log(arguments)
    results: dict[str, Any] = {}
    if arguments.num_iters_cold > 0:
        files = _model_files(arguments)
        results |= _results(
            "cold", [_measure(arguments, files) for _ in range(arguments.num_iters_cold)]
        )
    if arguments.num_iters_warm > 0:
        num_runs = arguments.num_iters_warmup + arguments.num_iters_warm
        runs = [_measure(arguments) for _ in range(num_runs)]
        results |= _results("warm", runs[arguments.num_iters_warmup :])
    for kind in ("cold", "warm"):
        if f"avg_{kind}_startup_time" in results:
            print(
                f"Avg {kind} startup: {results[f'avg_{kind}_startup_time']:.2f} s, first token "
                f"after {results[f'avg_{kind}_first_token_time']:.2f} s"
            )
    write_json(arguments.output_json, results)
    return 0


def _measure(arguments: argparse.Namespace, drop: Sequence[Path] = ()) -> dict[str, float]:
    """Measure a start with this command's arguments, after dropping the files ``drop`` from the
    operating system's cache."""
    for file in drop:
        _drop_from_cache(file)
    name, given = arguments.command_line[:2], arguments.command_line[2:]  # a -- may be among these
    words = [*name, f"{CHILD}={time.time()}", *given]
    child = subprocess.run(
        python_command(_MAIN, *words), stdout=subprocess.PIPE, text=True, check=False
    )
    if child.returncode != 0:
        raise ValueError(f"the measured process ended with status {child.returncode}")
    measured: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return measured


def _measure_here(arguments: argparse.Namespace) -> dict[str, float]:
    from quire.sampling_params import SamplingParams

    with open_llm(arguments) as llm:
        ready = time.time()
        one_token = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)
        llm.generate({"prompt_token_ids": [1]}, one_token, use_tqdm=False)
        first_token = time.time()
    started = arguments.measure_this_process
    return {"startup": ready - started, "first_token": first_token - started}


def _results(kind: str, runs: list[dict[str, float]]) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for what in ("startup", "first_token"):
        times = [one[what] for one in runs]
        results[f"avg_{kind}_{what}_time"] = sum(times) / len(times)
        results[f"{kind}_{what}_times"] = times
        results[f"{kind}_{what}_percentiles"] = percentiles(times)
    return results


def _model_files(arguments: argparse.Namespace) -> list[Path]:
    from quire.model_files import find_model_files

    folder = find_model_files(engine_args(arguments)).path
    return [file for file in folder.iterdir() if file.is_file()]


def _drop_from_cache(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
