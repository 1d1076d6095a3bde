"""What a model needs in memory: weights, KV bytes per token, longest context, concurrency.

Reads the config and the headers of the weights, never a tensor:

  quire plan Qwen/Qwen3-0.6B --memory 24GiB
"""

from __future__ import annotations

import argparse
import json

from quire.args import EngineArgs, as_argument
from quire.cli.engine_flags import add_engine_flags, quiet_log
from quire.sizes import parse_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [MODEL] [options]"
    parser.add_argument("model_name", nargs="?", metavar="MODEL", help="as --model")
    parser.add_argument(
        "--memory",
        type=as_argument(parse_bytes),
        metavar="BYTES",
        help="of the device, such as 24GiB; default: of this machine",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_engine_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    from quire.plan import format_plan, make_plan

    quiet_log(arguments)
    args = EngineArgs.from_cli_args(arguments)
    if arguments.model_name is not None:
        args.model = arguments.model_name
    plan = make_plan(args, arguments.memory)
    print(json.dumps(plan.to_json(), indent=2) if arguments.json else format_plan(plan))
    return 0 if plan.longest_context else 1
