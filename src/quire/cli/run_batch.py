"""Answer a file of requests (OpenAI's batch format), with a model here or with a server.

  quire run-batch -i in.jsonl -o out.jsonl Qwen/Qwen3-0.6B
  quire run-batch -i in.jsonl -o out.jsonl --url http://localhost:8000

A line of the input is {"custom_id": ..., "method": "POST", "url": "/v1/chat/completions", "body":
{...}}; the method is always POST, and the url that of an endpoint of `quire serve` under /v1/.
A wrong line gets an error in the output and does not stop the run. A run that was interrupted goes
on when the same command is given again: lines with an answer are not sent again, unless the answer
is a failure of the server (status 500 or more). A refused API key (401, 403) ends the run. A line
that has changed since is sent again if it had failed; if it had succeeded, the run is refused.

Exit status: 0 all lines have good answers, 3 some have errors, 1 the run ended early.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from quire import env
from quire.args import parse_json_object
from quire.batch_files.lines import BatchInput, Line, fetched, read_lines
from quire.batch_files.output import OutputFile
from quire.cli.engine_flags import add_engine_flags, engine_args, set_up_log, settle_model
from quire.cli.parser import at_least
from quire.cli.remote_flags import (
    add_remote_flags,
    named_model,
    refuse_engine_flags,
    refuse_remote_flags,
    refuse_served_name,
)
from quire.errors import QuireError
from quire.server.args import CHAT_TEMPLATE_HELP, ServerArgs

if TYPE_CHECKING:
    from quire.batch_files.runner import Summary
    from quire.batch_files.targets import Target
    from quire.engine.async_engine import AsyncLLM
    from quire.engine.start import StartWatch

DEFAULT_MAX_INFLIGHT = 512
SOME_FAILED = 3
# Flags of `quire serve` that mean the same here.
_SERVER_FIELDS = ("chat_template", "default_chat_template_kwargs", "response_role", "strict_fields")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-i", "--input-file", required=True, metavar="FILE", help="requests; a path or a URL"
    )
    parser.add_argument("-o", "--output-file", required=True, metavar="FILE", help="answers")
    parser.add_argument(
        "--max-inflight",
        type=at_least(1),
        default=DEFAULT_MAX_INFLIGHT,
        metavar="N",
        help=f"requests at once; default {DEFAULT_MAX_INFLIGHT}",
    )
    parser.add_argument(
        "--ordered",
        action=argparse.BooleanOptionalAction,
        default=bool(env.AS_VLLM.get()),
        help="write answers in the order of the requests, not as they come; default in `vllm`",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="discard answers that the output has already"
    )
    add_remote_flags(parser)
    _add_server_flags(parser)
    add_engine_flags(parser)


def _add_server_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("answers (without --url)")
    group.add_argument("--chat-template", metavar="TEXT", help=CHAT_TEMPLATE_HELP)
    group.add_argument(
        "--default-chat-template-kwargs",
        type=parse_json_object,
        metavar="JSON",
        help="values for the chat template",
    )
    group.add_argument(
        "--response-role", default=ServerArgs.response_role, metavar="NAME", help="role of answers"
    )
    group.add_argument(
        "--strict-fields",
        default=ServerArgs.strict_fields,
        choices=("error", "warn", "off"),
        help="unknown fields of requests: an error, ignored with a warning, or ignored",
    )


def run(arguments: argparse.Namespace) -> int:
    settle_model(arguments)
    set_up_log(arguments)
    refuse_remote_flags(arguments)
    if arguments.url is not None:
        refuse_engine_flags(arguments, "chat_template", "default_chat_template_kwargs")
        refuse_served_name(arguments)
    if "-" in (arguments.input_file, arguments.output_file):
        raise ValueError(
            "'-' cannot stand for standard input or output: the files of --input-file and "
            "--output-file are read more than once; give a path"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = fetched(arguments.input_file, Path(folder))
        batch = BatchInput.check(path, named_model(arguments))
        output_path = Path(arguments.output_file)
        if _is_same_file(output_path, path):
            raise ValueError(f"{output_path} is the input; choose another output file")
        with OutputFile(
            output_path, batch.keys, marks=batch.marks, overwrite=arguments.overwrite
        ) as output:
            return _run(arguments, batch, output)


def _is_same_file(output_path: Path, path: Path) -> bool:
    try:
        return output_path.samefile(path)
    except OSError:  # missing, or something that opening it reports
        return False


def _run(arguments: argparse.Namespace, batch: BatchInput, output: OutputFile) -> int:
    num_before, num_lines = len(output.done), len(batch.keys)
    num_failed = output.num_failed
    if num_before == num_lines:
        _say(f"all {num_lines} lines have an answer already")
    else:
        if num_before:
            _say(f"{num_before} of {num_lines} lines have an answer already")
        for reason, num_dropped in output.dropped.items():
            _say(f"{num_dropped} lines that {reason} are asked again")
        num_failed += _answer_rest(arguments, batch, output)
    if arguments.ordered and num_before:
        output.put_in_order(batch.keys)
    return SOME_FAILED if num_failed else 0


def _answer_rest(arguments: argparse.Namespace, batch: BatchInput, output: OutputFile) -> int:
    """Answer the remaining lines; how many of them have failed."""
    try:
        summary = asyncio.run(_answer(arguments, batch, output))
    except (QuireError, KeyboardInterrupt):
        _say("stopped; run the same command again to go on with the lines that have no answer yet")
        raise
    _report(summary)
    return summary.num_failed


async def _answer(arguments: argparse.Namespace, batch: BatchInput, output: OutputFile) -> Summary:
    from tqdm import tqdm

    from quire.batch_files.runner import Runner

    async with _target(arguments) as target:
        with tqdm(
            total=len(batch.keys), initial=len(output.done), unit="line", disable=None
        ) as bar:
            runner = Runner(
                target,
                output.write,
                max_inflight=arguments.max_inflight,
                ordered=arguments.ordered,
                on_record=lambda record: bar.update(),
            )
            model = named_model(arguments) if arguments.url is not None else None
            return await runner.run(_undone(batch, output), model)


def _undone(batch: BatchInput, output: OutputFile) -> Iterator[Line]:
    return (line for line in read_lines(batch.path) if line.key not in output.done)


def _target(arguments: argparse.Namespace) -> AbstractAsyncContextManager[Target]:
    from quire.batch_files.targets import at_server, in_process

    if arguments.url is not None:
        return at_server(arguments.url, arguments.api_key, named_model(arguments))
    from quire.server.state import ServerState

    given = vars(arguments)
    server_args = ServerArgs(**{name: given.pop(name) for name in _SERVER_FIELDS})

    def open_engine(watch: StartWatch) -> AsyncLLM:
        from quire.engine.async_engine import AsyncLLM

        return AsyncLLM(engine_args(arguments).create_engine_config())

    return in_process(ServerState(args=server_args), open_engine)


def _report(summary: Summary) -> None:
    tokens = f"{summary.num_prompt_tokens} prompt and {summary.num_output_tokens} output tokens"
    failed = f", {summary.num_failed} with errors" if summary.num_failed else ""
    _say(f"{summary.num_ok} lines answered{failed}; {tokens} in {summary.seconds:.1f} s")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
