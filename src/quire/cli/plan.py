"""What a model needs in memory: weights, KV bytes per token, longest context, concurrency.

Reads the config, the headers of weight files and the tokenizer of a local model, unless
--skip-tokenizer-init is given. The exit status is 1 if the model would not start, as far as these
tell: the weights of a model that runs through transformers are not compared with its config. A
folder without weights is planned from its config alone, and the table says so.

  quire plan Qwen/Qwen3-0.6B                   on this machine, as an engine here would choose
  quire plan Qwen/Qwen3-0.6B --memory 24GiB    on a GPU with this much memory
"""

from __future__ import annotations

import argparse
import json

from quire.args import as_argument
from quire.cli.engine_flags import add_engine_flags, engine_args, set_up_log
from quire.cli.remote_flags import refuse_served_name
from quire.sizes import parse_memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory",
        type=as_argument(parse_memory),
        metavar="BYTES",
        help="plan for a GPU with this much memory, such as 24GiB (with --device cpu: for a CPU); "
        "default: this machine",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_engine_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    from quire.plan import format_plan, make_plan

    refuse_served_name(arguments)
    set_up_log(arguments)
    plan = make_plan(engine_args(arguments), arguments.memory)
    print(json.dumps(plan.to_json(), indent=2) if arguments.json else format_plan(plan))
    return 0 if plan.fits else 1
