"""A served model beside vLLM's server, on one GPU: latency at two rates, and peak throughput.

    python benchmarks/serve.py --output DIR                     # 0.6B and 8B: under 4 minutes
    python benchmarks/serve.py --models qwen3-0.6b --rates inf
    python benchmarks/serve.py --models tiny --num-prompts 16 --rates 8 inf --input-len 64 \\
        --output-len 16 -- --device cpu                         # a rehearsal without a GPU

For each model: `quire serve` with dummy weights of the real config and no prefix cache, and on the
same host `quire bench serve` with fresh random prompts for every rate; then the same work offline.
Flags after `--` go to the engine. vLLM's figures are in serve_parts/peer.py.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_parts.models import CONFIGS, write_model
from serve_parts.load import Load
from serve_parts.peer import ALL_AT_ONCE
from serve_parts.report import Line, lines_of, offline_line, table
from serve_parts.running import running_server
from serve_parts.tokenizer import write_tokenizer

MODELS = ("qwen3-0.6b", "llama-3.1-8b")
RATES = (4.0, 32.0, ALL_AT_ONCE)
SECONDS_AT_A_RATE = 15
NUM_AT_ONCE = 1000
NUM_WARMUPS = 16


def main() -> int:
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    arguments = _parser().parse_args(words[:split])
    engine_flags = words[split + 1 :]
    started = time.time()
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        output = arguments.output or Path(folder)
        output.mkdir(parents=True, exist_ok=True)
        for name in arguments.models:
            model = write_model(Path(folder), name)
            write_tokenizer(model, CONFIGS[name]["vocab_size"])
            lines += measure_model(name, model, arguments, engine_flags, output)
            print(table(lines), flush=True)
        (output / "serve.md").write_text(table(lines) + "\n")
    print(f"\n{time.time() - started:.0f} s")
    return int(any(line.met is False for line in lines))


def measure_model(
    name: str, model: Path, arguments: argparse.Namespace, engine_flags: list[str], output: Path
) -> list[Line]:
    """Measure every rate and, to compare with all requests at once, the same work offline."""
    flags = ["--load-format", "dummy", "--no-enable-prefix-caching", "--max-model-len"]
    flags += [str(arguments.max_model_len), *engine_flags]
    lines, served = [], 0.0
    program = ["-m", "quire", "serve", str(model), "--port", "0", "--served-model-name", name]
    with running_server([*program, *flags], output / f"{name}-server.log") as server:
        for index, rate in enumerate(arguments.rates):
            result = measure_rate(server.url, model, rate, index, arguments, output)
            lines += lines_of(name, rate, result)
            if rate == ALL_AT_ONCE:
                served = float(result["output_throughput"])
    if served and not arguments.no_offline:
        offline = measure_offline(model, arguments, flags)
        lines.append(offline_line(name, served, offline))
    return lines


def measure_rate(
    url: str, model: Path, rate: float, index: int, arguments: argparse.Namespace, output: Path
) -> dict[str, Any]:
    """Run the load generator once; prompts differ from those of other rates."""
    at_rate = NUM_AT_ONCE if rate == ALL_AT_ONCE else math.ceil(rate * SECONDS_AT_A_RATE)
    num_prompts = arguments.num_prompts or at_rate
    load = Load(
        num_prompts=num_prompts,
        rate=rate,
        input_len=arguments.input_len,
        output_len=arguments.output_len,
        seed=100 + index,
        num_warmups=min(NUM_WARMUPS, num_prompts),
    )
    print(f"\n{model.name}, {num_prompts} requests, rate {rate:g}", flush=True)
    return load.run(url, model, output / f"{model.name}-{rate:g}.json")


def measure_offline(model: Path, arguments: argparse.Namespace, flags: list[str]) -> float:
    """Output tokens a second of `LLM` in a process of its own."""
    script = Path(__file__).parent / "serve_parts" / "offline.py"
    options = {
        "engine": {"model": str(model), **_as_options(flags)},
        "num_prompts": arguments.num_prompts or NUM_AT_ONCE,
        "input_len": arguments.input_len,
        "output_len": arguments.output_len,
    }
    command = [sys.executable, str(script), json.dumps(options)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    print(f"{model.name}, offline: {measured}", flush=True)
    return float(measured["output_throughput"])


def _as_options(flags: list[str]) -> dict[str, Any]:
    """Command-line flags as keyword arguments of `LLM`."""
    from dataclasses import fields

    from quire import EngineArgs
    from quire.cli.parser import Parser

    parser = Parser(prog="engine", description=None)
    EngineArgs.add_cli_args(parser)
    args = EngineArgs.from_cli_args(parser.parse(flags))
    values = ((item.name, getattr(args, item.name), item.default) for item in fields(EngineArgs))
    return {name: value for name, value, default in values if value != default}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, choices=tuple(CONFIGS))
    parser.add_argument("--rates", nargs="+", type=float, default=RATES)
    parser.add_argument("--num-prompts", type=int, help="at every rate; default: 15 s of it")
    parser.add_argument("--input-len", type=int, default=512)
    parser.add_argument("--output-len", type=int, default=128)
    parser.add_argument("--max-model-len", type=int, default=2048)
    parser.add_argument("--no-offline", action="store_true")
    parser.add_argument("--output", type=Path, help="folder for results and the servers' logs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
