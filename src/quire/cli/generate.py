"""Continue prompts, given as flags or one per line on standard input.

quire generate --prompt "The capital of France is" --max-tokens 16 --temperature 0
quire generate --model ./my-model --json < prompts.txt
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from quire.cli.engine_flags import add_engine_flags, open_llm
from quire.cli.parser import at_least
from quire.cli.sampling_flags import add_sampling_flags, sampling_params
from quire.cli.streaming import InOrder, stream_all

if TYPE_CHECKING:
    from quire.llm import LLM
    from quire.outputs import RequestOutput
    from quire.sampling_params import SamplingParams

DEFAULT_MAX_TOKENS = 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-p", "--prompt", nargs="+", action="extend", metavar="TEXT", help="one or more prompts"
    )
    parser.add_argument(
        "-n", "--n", type=at_least(1), default=1, metavar="N", help="continuations of each"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per prompt")
    parser.add_argument(
        "--stream",
        action=argparse.BooleanOptionalAction,
        help="show text as it comes; default: on a terminal, for one continuation",
    )
    add_sampling_flags(parser, DEFAULT_MAX_TOKENS)
    add_engine_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    prompts = arguments.prompt or _read_prompts()
    if arguments.stream and (arguments.json or arguments.n != 1):
        raise ValueError("--stream shows one continuation as text; leave out --json and --n")
    with open_llm(arguments) as llm:
        params = sampling_params(arguments, llm.get_default_sampling_params())
        streams = arguments.stream
        if streams is None:
            streams = sys.stdout.isatty() and params.n == 1 and not arguments.json
        if streams:
            _stream(llm, prompts, params)
        else:
            for output in llm.generate(prompts, params, use_tqdm=sys.stderr.isatty()):
                print(_as_json(output) if arguments.json else _as_text(output))
    return 0


def _read_prompts() -> list[str]:
    """The lines of standard input; a terminal is told what is expected."""
    if sys.stdin.isatty():
        print("One prompt per line; end with Ctrl-D.", file=sys.stderr)
    prompts = [line.rstrip("\r\n") for line in sys.stdin]
    prompts = [prompt for prompt in prompts if prompt]
    if not prompts:
        raise ValueError("there is no prompt; give --prompt TEXT, or lines on standard input")
    return prompts


def _stream(llm: LLM, prompts: list[str], params: SamplingParams) -> None:
    screen = InOrder(len(prompts), lambda index: prompts[index])
    for index, completion in stream_all(llm, [(prompt, params) for prompt in prompts]):
        sys.stdout.write(screen.feed(index, completion.text, completion.finished()))
        sys.stdout.flush()


def _as_text(output: RequestOutput) -> str:
    return "\n".join(f"{output.prompt}{completion.text}" for completion in output.outputs)


def _as_json(output: RequestOutput) -> str:
    result = {
        "prompt": output.prompt,
        "num_prompt_tokens": len(output.prompt_token_ids or ()),
        "num_cached_tokens": output.num_cached_tokens,
        "outputs": [
            {
                "index": completion.index,
                "text": completion.text,
                "num_tokens": len(completion.token_ids),
                "finish_reason": completion.finish_reason,
                "stop_reason": completion.stop_reason,
            }
            for completion in output.outputs
        ],
    }
    return json.dumps(result, ensure_ascii=False)
