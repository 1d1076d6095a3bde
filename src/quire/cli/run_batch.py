"""Answer a file of requests (OpenAI's batch format), with a model here or with a server.

  quire run-batch -i in.jsonl -o out.jsonl Qwen/Qwen3-0.6B
  quire run-batch -i in.jsonl -o out.jsonl --url http://localhost:8000

A line of the input is {"custom_id": ..., "method": "POST", "url": "/v1/chat/completions", "body":
{...}}; the method is always POST, and the url that of an endpoint of `quire serve` under /v1/.
An --output-file that is a URL gets the answers by PUT, when all lines have one. Their file stays
in --output-tmp-dir if some have errors.

A wrong line gets an error in the output and does not stop the run. A run that was interrupted goes
on when the same command is given again: lines with an answer are not sent again, unless the server
had failed (status 500 or more) or had refused the key (401, 403), which ends the run. A line that
has changed since is sent again if it had failed; if it had succeeded, the run is refused.

Exit status: 0 all lines have good answers, 3 some have errors, 1 the run ended early.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from quire import env
from quire.args import add_flags, add_hidden_flags
from quire.batch_files.at_urls import check_url, fetched, is_url, staged, upload
from quire.batch_files.lines import BatchInput, Line, read_lines
from quire.batch_files.other_flags import VERDICTS
from quire.batch_files.output import OutputFile
from quire.cli.engine_flags import (
    add_engine_flags,
    engine_args,
    served_config,
    set_up_log,
    settle_model,
)
from quire.cli.parser import at_least
from quire.cli.remote_flags import (
    add_remote_flags,
    named_model,
    refuse_engine_flags,
    refuse_remote_flags,
    refuse_served_name,
)
from quire.clients.address import DEFAULT_URL
from quire.compat import settle_other_flags
from quire.errors import QuireError
from quire.server.args import ServerArgs

if TYPE_CHECKING:
    from quire.batch_files.runner import Summary
    from quire.batch_files.targets import Target
    from quire.engine.async_engine import AsyncLLM
    from quire.engine.start import StartWatch

DEFAULT_MAX_INFLIGHT = 512
SOME_FAILED = 3
# Flags of `quire serve` that mean the same here.
_SERVER_FIELDS = (
    *("strict_fields", "trust_request_chat_template", "return_tokens_as_token_ids"),
    *("chat_template", "chat_template_content_format", "default_chat_template_kwargs"),
    *("exclude_tools_when_tool_choice_none", "enable_auto_tool_choice", "tool_call_parser"),
    *("tool_parser_plugin", "reasoning_parser", "response_role"),
)
_GROUP = "answers"  # without --url
_OF_SERVER = [item for item in dataclasses.fields(ServerArgs) if item.name in _SERVER_FIELDS]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-i", "--input-file", required=True, metavar="FILE", help="requests; a path or a URL"
    )
    parser.add_argument(
        "-o", "--output-file", required=True, metavar="FILE", help="answers; a path or a URL"
    )
    parser.add_argument(
        "--output-tmp-dir",
        metavar="DIR",
        help="where answers for a URL stand until they are uploaded; default: the current folder",
    )
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
        help="write answers in the order of the requests, not as they come; the default under "
        "`python -m quire.as_vllm`",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="discard answers that the output has already"
    )
    add_remote_flags(parser)
    add_flags(parser, _answer_flags())  # first: an engine refuses some of these names
    add_hidden_flags(parser, VERDICTS)
    add_engine_flags(parser)


def _answer_flags() -> type:
    """A dataclass of the flags of `quire serve` that this command has too, in one group."""
    fields = []
    for item in _OF_SERVER:
        flag = dataclasses.replace(item.metadata["flag"], group=_GROUP)
        own = dataclasses.field(default=item.default, metadata={"flag": flag})
        fields.append((item.name, item.type, own))
    return dataclasses.make_dataclass("AnswerFlags", fields)


def run(arguments: argparse.Namespace) -> int:
    settle_model(arguments)
    set_up_log(arguments)
    refuse_remote_flags(arguments)
    settle_other_flags(arguments, VERDICTS)
    if arguments.url is not None:
        _check_url(arguments.url)
        refuse_engine_flags(arguments, {item.name: item.default for item in _OF_SERVER})
        refuse_served_name(arguments)
    else:
        _check_formats(arguments)
    if "-" in (arguments.input_file, arguments.output_file):
        raise ValueError(
            "'-' cannot stand for standard input or output: the files of --input-file and "
            "--output-file are read more than once; give a path"
        )
    output_path = _output_path(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = fetched(arguments.input_file, Path(folder))
        batch = BatchInput.check(path, named_model(arguments))
        if _is_same_file(output_path, path):
            raise ValueError(f"{output_path} is the input; choose another output file")
        with OutputFile(
            output_path, batch.keys, marks=batch.marks, overwrite=arguments.overwrite
        ) as output:
            status = _run(arguments, batch, output)
    if is_url(arguments.output_file):
        _upload(output_path, arguments.output_file, status)
    return status


def _upload(path: Path, url: str, status: int) -> None:
    """Upload the answers; with errors among them the file stays, for another run to go on from."""
    upload(path, url)
    if status == 0:
        path.unlink()
    else:
        _say(f"the answers, some of them errors, are uploaded and stay in {path}")


def _check_formats(arguments: argparse.Namespace) -> None:
    """``ValueError`` for an unknown parser, before the model loads."""
    from quire.server.answer_formats import check_formats

    check_formats(_server_args(arguments))


def _check_url(url: str) -> None:
    if "://" not in url:
        raise ValueError(
            f"--url {url} is not the URL of a server; give one such as {DEFAULT_URL}, or leave it "
            "out (vLLM's --url, the address of metrics, has no counterpart)"
        )


def _output_path(arguments: argparse.Namespace) -> Path:
    """The file of answers, even if it is to be uploaded in the end."""
    if is_url(arguments.output_file):
        check_url(arguments.output_file)
        folder = Path(arguments.output_tmp_dir or "")
        if not folder.is_dir():
            raise ValueError(f"--output-tmp-dir {folder} is not a folder; create it first")
        return staged(arguments.output_file, folder)
    if arguments.output_tmp_dir is not None:
        _say("--output-tmp-dir has no effect, since --output-file is not a URL")
    return Path(arguments.output_file)


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

    server_args = _server_args(arguments)
    for name in _SERVER_FIELDS:  # which mean something else to an engine
        delattr(arguments, name)

    def open_engine(watch: StartWatch) -> AsyncLLM:
        from quire.engine.async_engine import AsyncLLM

        return AsyncLLM(served_config(engine_args(arguments), server_args.chat_template)())

    return in_process(ServerState(args=server_args), open_engine)


def _server_args(arguments: argparse.Namespace) -> ServerArgs:
    return ServerArgs(**{name: getattr(arguments, name) for name in _SERVER_FIELDS})


def _report(summary: Summary) -> None:
    tokens = f"{summary.num_prompt_tokens} prompt and {summary.num_output_tokens} output tokens"
    failed = f", {summary.num_failed} with errors" if summary.num_failed else ""
    _say(f"{summary.num_ok} lines answered{failed}; {tokens} in {summary.seconds:.1f} s")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
