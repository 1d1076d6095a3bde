"""Continue prompts, given as flags or one per line on standard input.

quire generate --prompt "The capital of France is" --max-tokens 16 --temperature 0
quire generate ./my-model --json < prompts.txt
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from quire.cli.engine_flags import add_engine_flags, engine_args, open_llm, settle_model
from quire.cli.parser import at_least
from quire.cli.remote_flags import refuse_served_name
from quire.cli.sampling_flags import (
    add_sampling_flags,
    check_sampling_flags,
    sampling_params,
)
from quire.cli.stdin_lines import lines_of, name_of_line
from quire.cli.streaming import InOrder, stream_all
from quire.model_files import find_model_files

if TYPE_CHECKING:
    from quire.llm import LLM
    from quire.outputs import CompletionOutput, RequestOutput
    from quire.sampling_params import SamplingParams

DEFAULT_MAX_TOKENS = 128
SEPARATOR = "-" * 8
_IN_LIST = re.compile(r"prompts\[(\d+)\]")  # how `LLM` begins an error about one of several
_ADVISED = "truncate_prompt_tokens"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-p", "--prompt", nargs="+", action="extend", metavar="TEXT", help="one or more prompts"
    )
    parser.add_argument(
        "-n", "--n", type=at_least(1), default=1, metavar="N", help="continuations of each"
    )
    parser.add_argument(
        "--best-of", type=at_least(1), metavar="N", help="generate this many, print the n likeliest"
    )
    parser.add_argument(
        "--logprobs",
        type=int,
        metavar="N",
        help="with --json: log-probabilities of each token and of the N likeliest",
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
    settle_model(arguments)
    check_sampling_flags(arguments)
    refuse_served_name(arguments)
    _check_output(arguments)
    named = _named_prompts(arguments.prompt)
    if not named:
        find_model_files(engine_args(arguments), with_weights=False)  # names a missing model
        raise ValueError("there is no prompt; give --prompt TEXT, or lines on standard input")
    prompts = list(named.values())
    with open_llm(arguments) as llm, _saying_which(list(named)):
        params = sampling_params(arguments, llm.get_default_sampling_params())
        if _streams(arguments):
            _stream(llm, prompts, params)
        else:
            for output in llm.generate(prompts, params, use_tqdm=sys.stderr.isatty()):
                print(_as_json(output) if arguments.json else _as_text(output))
    return 0


def _check_output(arguments: argparse.Namespace) -> None:
    """Refuse ways of printing that do not go together."""
    if arguments.stream and (arguments.json or arguments.n != 1 or arguments.best_of):
        raise ValueError(
            "--stream shows one continuation as text; leave out --json, --n and --best-of"
        )
    if arguments.logprobs is not None and not arguments.json:
        raise ValueError("--logprobs are printed as JSON; add --json")


def _streams(arguments: argparse.Namespace) -> bool:
    if arguments.stream is not None:
        return bool(arguments.stream)
    is_plain = arguments.n == 1 and not arguments.best_of and not arguments.json
    return is_plain and sys.stdout.isatty()


def _named_prompts(given: Sequence[str] | None) -> dict[str, str]:
    """Name in messages -> prompt: those of ``given`` or, without any, the lines of standard input
    that are not empty."""
    if given:
        return {f"prompt {number}": prompt for number, prompt in enumerate(given, start=1)}
    if sys.stdin.isatty():
        print("One prompt per line; end with Ctrl-D.", file=sys.stderr)
    lines = enumerate(lines_of(sys.stdin), start=1)
    return {name_of_line(number): line for number, line in lines if line}


@contextlib.contextmanager
def _saying_which(names: Sequence[str]) -> Iterator[None]:
    """Replace ``prompts[i]``, with which errors of `LLM` begin, by the name of that prompt, and
    the parameter that they advise by its flag."""
    try:
        yield
    except ValueError as error:
        words = str(error).replace(_ADVISED, f"--{_ADVISED.replace('_', '-')}")
        found = _IN_LIST.match(words)
        if found is not None:
            words = names[int(found[1])] + words[found.end() :]
        raise ValueError(words) from error


def _stream(llm: LLM, prompts: list[str], params: SamplingParams) -> None:
    screen = InOrder(len(prompts), lambda index: prompts[index])
    for index, completion in stream_all(llm, [(prompt, params) for prompt in prompts]):
        sys.stdout.write(screen.feed(index, completion.text, completion.finished()))
        sys.stdout.flush()


def _as_text(output: RequestOutput) -> str:
    """Prompt and continuation; dashes separate several, since each may have several lines."""
    texts = [f"{output.prompt}{completion.text}" for completion in output.outputs]
    return f"\n{SEPARATOR}\n".join(texts)


def _as_json(output: RequestOutput) -> str:
    result = {
        "prompt": output.prompt,
        "num_prompt_tokens": len(output.prompt_token_ids or ()),
        "num_cached_tokens": output.num_cached_tokens,
        "outputs": [_completion(completion) for completion in output.outputs],
    }
    return json.dumps(result, ensure_ascii=False)


def _completion(completion: CompletionOutput) -> dict[str, Any]:
    """One continuation as JSON, with log-probabilities if they were requested."""
    result: dict[str, Any] = {
        "index": completion.index,
        "text": completion.text,
        "num_tokens": len(completion.token_ids),
        "finish_reason": completion.finish_reason,
        "stop_reason": completion.stop_reason,
    }
    if completion.logprobs is None:
        return result
    candidates = [
        [
            {
                "token_id": token_id,
                "token": one.decoded_token,
                "logprob": one.logprob,
                "rank": one.rank,
            }
            for token_id, one in position.items()
        ]
        for position in completion.logprobs
    ]
    # At each position the token itself, then the likeliest ones.
    return {**result, "cumulative_logprob": completion.cumulative_logprob, "logprobs": candidates}
