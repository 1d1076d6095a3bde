"""Continue prompts with a model on a server: Quire's, or another one with OpenAI's API.

quire complete --url http://localhost:8000 --prompt "The capital of France is" --temperature 0
quire complete -q "Once upon a time"        # one text, from the server at its default address
quire complete < prompts.txt                # one prompt a line, with its spaces

`quire generate` does the same with a model that it runs itself.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from quire.cli.chat import piped_lines, terminal_lines
from quire.cli.remote_flags import add_remote_flags
from quire.cli.sampling_flags import add_sampling_flags, check_sampling_flags, request_fields
from quire.cli.stdin_lines import lines_of
from quire.clients.address import DEFAULT_URL, api_key

if TYPE_CHECKING:
    from quire.clients.remote import RemoteServer

DEFAULT_MAX_TOKENS = 128
_PATH = "/v1/completions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-p", "--prompt", nargs="+", action="extend", metavar="TEXT", help="one or more prompts"
    )
    parser.add_argument("-q", "--quick", metavar="TEXT", help="one prompt; the same as --prompt")
    parser.add_argument("--model", metavar="NAME", help="a model of the server; default: its first")
    parser.add_argument("--seed", type=int, metavar="N", help="makes random choices repeatable")
    add_remote_flags(parser, DEFAULT_URL)
    add_sampling_flags(parser, DEFAULT_MAX_TOKENS)


def run(arguments: argparse.Namespace) -> int:
    from quire.clients.remote import RemoteServer

    check_sampling_flags(arguments)
    server = RemoteServer(arguments.url, api_key(arguments.api_key))
    fields = {**request_fields(arguments), "model": server.model(arguments.model).name}
    if arguments.seed is not None:
        fields["seed"] = arguments.seed
    for prompt in _prompts(arguments):
        _print_continuation(server, fields, prompt)
    return 0


def _prompts(arguments: argparse.Namespace) -> Iterable[str]:
    given = [*(arguments.prompt or ()), *([] if arguments.quick is None else [arguments.quick])]
    if given:
        return given
    if sys.stdin.isatty():
        print("One prompt per line; /exit or Ctrl-D leaves.", file=sys.stderr)
        return _until_exit(terminal_lines())
    return piped_lines(lines_of(sys.stdin))


def _until_exit(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line.strip() == "/exit":
            return
        yield line


def _print_continuation(server: RemoteServer, fields: Mapping[str, Any], prompt: str) -> None:
    """Print the prompt, and its continuation as it is streamed."""
    sys.stdout.write(prompt)
    sys.stdout.flush()
    try:
        for event in server.stream(_PATH, {**fields, "prompt": prompt}):
            for choice in event.get("choices", ()):
                sys.stdout.write(choice.get("text") or "")
                sys.stdout.flush()
    finally:
        print(flush=True)
