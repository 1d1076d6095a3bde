"""What the HTTP front end of `quire serve` costs in CPU time, without a GPU. Linux only.

    python benchmarks/front.py                                  # three repetitions: half a minute
    python benchmarks/front.py --step-ms 0 --prompt-ms 0        # as fast as the front end can
    python benchmarks/front.py --num-prompts 64 --input-len 16 --repetitions 1

The server is the real one. Its engine core, a process of its own, computes nothing: it takes
requests and returns one random token per running row and step, in steps that last as long as those
of a small model on a large GPU (front_parts/instant_core.py). `quire bench serve` sends all
requests at once, with prompts of token ids, and reads streams, on the same machine: with fewer than
three processors the three processes also wait for each other, which shows in the seconds.

CPU time is user and system time from before the load generator starts until it has ended, which
includes its short request that checks whether the server is ready. It is counted in ticks of 10 ms,
too coarse for small loads. The time per token includes everything, prompts too.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from front_parts.cpu_time import children_of, cpu_seconds
from front_parts.report import Cost, table
from gpu_parts.models import CONFIGS, write_model
from serve_parts.load import Load
from serve_parts.running import RunningServer, running_server
from serve_parts.tokenizer import write_tokenizer

MODEL = "qwen3-0.6b"  # its vocabulary is what counts
MAX_NUM_BATCHED_TOKENS = 8192  # as on a GPU
NUM_WARMUPS = 64


def main() -> None:
    if not sys.platform.startswith("linux"):
        raise SystemExit("front.py reads CPU times from /proc, which only Linux has")
    args = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_model(folder, MODEL)
        write_tokenizer(model, CONFIGS[MODEL]["vocab_size"])
        with running_server(_program(model, args), folder / "server.log") as server:
            first, *rest = _loads(args)
            first.run(server.url, model, folder / "warm-up.json", quiet=True)
            costs = [_measure(server, load, model, folder / "result.json") for load in rest]
    print(table(costs))


def _program(model: Path, args: argparse.Namespace) -> list[str]:
    engine: dict[str, Any] = {
        "model": str(model),
        "device": "cpu",
        "load_format": "dummy",
        "enable_prefix_caching": False,
        "max_model_len": args.input_len + args.output_len,
        "max_num_seqs": args.max_num_seqs,
        "max_num_batched_tokens": MAX_NUM_BATCHED_TOKENS,
    }
    times = {"step_ms": args.step_ms, "prompt_ms": args.prompt_ms}
    script = Path(__file__).parent / "front_parts" / "server.py"
    return [str(script), json.dumps({"engine": engine, "times": times})]


def _loads(args: argparse.Namespace) -> list[Load]:
    """A smaller load to warm up, and one for each repetition."""
    sizes = [min(NUM_WARMUPS, args.num_prompts), *[args.num_prompts] * args.repetitions]
    return [
        Load(
            num_prompts=size,
            rate=math.inf,
            input_len=args.input_len,
            output_len=args.output_len,
            seed=seed,
        )
        for seed, size in enumerate(sizes)
    ]


def _measure(server: RunningServer, load: Load, model: Path, saved: Path) -> Cost:
    (core,) = children_of(server.pid)
    before = [cpu_seconds(pid) for pid in (server.pid, core)]
    result = load.run(server.url, model, saved, quiet=True)
    after = [cpu_seconds(pid) for pid in (server.pid, core)]
    front_cpu_s, core_cpu_s = (end - start for start, end in zip(before, after, strict=True))
    done = result["completed"], result["total_output_tokens"]
    if done != (load.num_prompts, load.num_prompts * load.output_len):
        raise SystemExit(
            f"{done[0]} of {load.num_prompts} requests were completed, with {done[1]} tokens, "
            f"not {load.output_len} each"
        )
    return Cost(
        seconds=result["duration"],
        num_requests=result["completed"],
        num_tokens=result["total_output_tokens"],
        mean_ttft_ms=result["mean_ttft_ms"],
        front_cpu_s=front_cpu_s,
        core_cpu_s=core_cpu_s,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-prompts", type=int, default=1000)
    parser.add_argument("--input-len", type=int, default=512, help="tokens of each prompt")
    parser.add_argument("--output-len", type=int, default=128, help="tokens of each answer")
    parser.add_argument("--max-num-seqs", type=int, default=256, help="rows of the core")
    parser.add_argument("--step-ms", type=float, default=4.3, help="duration of a step")
    parser.add_argument(
        "--prompt-ms", type=float, default=1.1, help="added for each prompt that begins in it"
    )
    parser.add_argument("--repetitions", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
