"""Talk to a model: answers stream, the conversation is remembered.

On a terminal, Ctrl-C stops the answer and not the program; /clear forgets the conversation, /exit
(or Ctrl-D) leaves. When the context is full, the oldest turns are forgotten, and a line says so.
Without a terminal every line of standard input is one turn:

  printf 'My name is Alia.\\nWhat is my name?\\n' | quire chat
  quire chat --url http://localhost:8000    # a server with OpenAI's API: Quire or another

With --url, the server limits the length of answers, unless --max-tokens is given.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from typing import Protocol

from quire.cli.conversation import Conversation
from quire.cli.engine_flags import add_engine_flags, engine_args, open_llm, settle_model
from quire.cli.remote_flags import (
    add_remote_flags,
    open_remote,
    refuse_engine_flags,
    refuse_remote_flags,
    refuse_served_name,
)
from quire.cli.sampling_flags import (
    add_sampling_flags,
    check_sampling_flags,
    request_fields,
    sampling_params,
)
from quire.cli.stdin_lines import lines_of
from quire.server.args import CHAT_TEMPLATE_HELP

DEFAULT_MAX_TOKENS = 1024
PROMPT = "> "
HELP = "/clear forgets the conversation, /exit leaves, Ctrl-C stops an answer"
_COMMAND = re.compile(r"/\w*")  # a path or a sentence is more than that


class Talk(Protocol):
    """A conversation with a model, here or on a server."""

    was_cut: bool
    num_tokens: int  # of the last answer; 0: not reported
    num_forgotten: int  # turns dropped to make room for the last answer; set when it begins

    @property
    def context(self) -> int: ...

    def clear(self) -> None: ...

    def say(self, text: str) -> Generator[str, None, None]: ...


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--system", "--system-prompt", metavar="TEXT", help="system message of the conversation"
    )
    parser.add_argument(
        "-q", "--quick", metavar="TEXT", help="say this, print the answer, and leave"
    )
    parser.add_argument(
        "--stats", action="store_true", help="after each answer: its tokens, and how fast they came"
    )
    add_remote_flags(parser)
    parser.add_argument("--chat-template", metavar="TEXT", help=CHAT_TEMPLATE_HELP)
    add_sampling_flags(parser, DEFAULT_MAX_TOKENS, unless="; with --url the server's own")
    parser.set_defaults(max_tokens=None)  # with --url the server's own, which knows its context
    add_engine_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    settle_model(arguments)
    if arguments.max_tokens is None and arguments.url is None:
        arguments.max_tokens = DEFAULT_MAX_TOKENS
    check_sampling_flags(arguments)
    refuse_remote_flags(arguments)
    refuse_served_name(arguments)
    with _talk(arguments) as (talk, name):
        if arguments.quick is not None:
            _print_answer(talk, arguments.quick, on_terminal=False, stats=arguments.stats)
        else:
            _converse(talk, name, on_terminal=sys.stdin.isatty(), stats=arguments.stats)
    return 0


@contextlib.contextmanager
def _talk(arguments: argparse.Namespace) -> Iterator[tuple[Talk, str]]:
    """The conversation that the flags describe, and the model's name."""
    if arguments.url is not None:
        from quire.cli.remote_chat import RemoteConversation

        refuse_engine_flags(arguments, {"chat_template": None})
        server, model = open_remote(arguments)
        fields = request_fields(arguments)
        yield RemoteConversation(server, model, fields, arguments.system), model.name
        return
    from quire.chat_template_choice import check_name, load_chat_template
    from quire.model_files import own_chat_template

    # a wrong one fails before the model loads
    template = load_chat_template(arguments.chat_template)
    check_name(template, partial(own_chat_template, engine_args(arguments)))
    with open_llm(arguments) as llm:
        params = sampling_params(arguments, llm.get_default_sampling_params())
        yield Conversation(llm, params, arguments.system, template), arguments.model


def _converse(talk: Talk, name: str, on_terminal: bool, stats: bool = False) -> None:
    if on_terminal:
        print(f"{name}: {HELP}", file=sys.stderr)
    for spoken in terminal_lines() if on_terminal else piped_lines(lines_of(sys.stdin)):
        line = spoken.strip()
        if line == "/exit":
            break
        if line == "/clear":
            talk.clear()
        elif line in ("/help", "/?"):
            print(HELP, file=sys.stderr)
        elif on_terminal and _COMMAND.fullmatch(line):
            print(f"there is no command {line}; {HELP}", file=sys.stderr)
        else:
            _print_answer(talk, line, on_terminal, stats)


def _print_answer(conversation: Talk, line: str, on_terminal: bool, stats: bool = False) -> None:
    pieces = conversation.say(line)
    started, first = time.perf_counter(), None
    try:
        for piece in pieces:
            if first is None:
                first = time.perf_counter()
                _note_forgotten(conversation.num_forgotten, conversation.context)
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        pieces.close()  # which aborts the request
        if not on_terminal:
            raise
        sys.stdout.write(" [stopped]")
    except ValueError as error:
        if not on_terminal:
            raise
        print(f"error: {error}", file=sys.stderr)  # such as a message that is too long
    if first is None:
        _note_forgotten(conversation.num_forgotten, conversation.context)
    print(flush=True)
    if conversation.was_cut:
        print("[cut at the length limit]", file=sys.stderr)
    if stats and first is not None:
        seconds = time.perf_counter() - first
        print(_figures(first - started, conversation.num_tokens, seconds), file=sys.stderr)


def _figures(first_s: float, num_tokens: int, seconds: float) -> str:
    """Latency and speed of an answer; ``seconds`` is the time after the first token."""
    told = [f"first token {first_s * 1000:.0f} ms"]
    if num_tokens:
        told.append(f"{num_tokens} tokens")
    if num_tokens > 1 and seconds > 0:
        told.append(f"{(num_tokens - 1) / seconds:.1f} tokens/s")
    return f"[{', '.join(told)}]"


def _note_forgotten(num_turns: int, context: int) -> None:
    if num_turns:
        turns = "turn is" if num_turns == 1 else f"{num_turns} turns are"
        print(
            f"[the conversation no longer fits in {context} tokens: its oldest {turns} forgotten; "
            "/clear forgets all of it]",
            file=sys.stderr,
        )


def terminal_lines() -> Iterator[str]:
    """What is typed, as it is, without blank lines."""
    import readline  # noqa: F401 (gives input() editing and history)

    while True:
        try:
            line = input(PROMPT)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            continue
        if line.strip():
            yield line


def piped_lines(lines: Iterable[str]) -> Iterator[str]:
    """The lines that are not blank, as they are; ``ValueError`` at the end if there was none."""
    is_silent = True
    for line in lines:
        if line.strip():
            is_silent = False
            yield line
    if is_silent:
        raise ValueError("standard input has no text; give lines there, or --quick TEXT")
