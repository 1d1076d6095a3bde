"""Talk to a model: answers stream, the conversation is remembered.

On a terminal, Ctrl-C stops the answer and not the program; /clear forgets the conversation, /exit
(or Ctrl-D) leaves. Without a terminal every line of standard input is one turn:

  printf 'My name is Alia.\\nWhat is my name?\\n' | quire chat
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING

from quire.cli.engine_flags import add_engine_flags, open_llm
from quire.cli.sampling_flags import add_sampling_flags, sampling_params

if TYPE_CHECKING:
    from quire.chat_template import ChatOptions
    from quire.llm import LLM
    from quire.sampling_params import SamplingParams

DEFAULT_MAX_TOKENS = 1024
PROMPT = "> "
HELP = "/clear forgets the conversation, /exit leaves, Ctrl-C stops an answer"

Message = dict[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--system", metavar="TEXT", help="system message of the conversation")
    parser.add_argument(
        "--chat-template", metavar="FILE", help="Jinja template, if not the model's own"
    )
    add_sampling_flags(parser, DEFAULT_MAX_TOKENS)
    add_engine_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    from quire.chat_template import ChatOptions, load_chat_template

    options = ChatOptions(template=load_chat_template(arguments.chat_template))
    with open_llm(arguments) as llm:
        params = sampling_params(arguments, llm.get_default_sampling_params())
        conversation = Conversation(llm, params, arguments.system, options)
        on_terminal = sys.stdin.isatty()
        if on_terminal:
            print(f"{arguments.model}: {HELP}", file=sys.stderr)
        for line in _terminal_lines() if on_terminal else _piped_lines(sys.stdin):
            if line == "/exit":
                break
            if line == "/clear":
                conversation.clear()
                continue
            if line in ("/help", "/?"):
                print(HELP, file=sys.stderr)
                continue
            _print_answer(conversation, line, on_terminal)
    return 0


class Conversation:
    """The messages so far. An answer that was stopped stays, as far as it came."""

    def __init__(
        self,
        llm: LLM,
        params: SamplingParams,
        system: str | None = None,
        options: ChatOptions | None = None,
    ) -> None:
        self._llm = llm
        self._options = options
        self._params = params
        self._opening: list[Message] = [{"role": "system", "content": system}] if system else []
        self.messages: list[Message] = list(self._opening)

    def clear(self) -> None:
        self.messages = list(self._opening)

    def say(self, text: str) -> Generator[str, None, None]:
        """The answer's text as it comes."""
        turn: Message = {"role": "user", "content": text}
        answer = ""
        try:
            messages = [*self.messages, turn]
            for output in self._llm.stream_chat(messages, self._params, options=self._options):
                piece = output.outputs[0].text
                answer += piece
                yield piece
        finally:
            if answer:
                self.messages += [turn, {"role": "assistant", "content": answer}]


def _print_answer(conversation: Conversation, line: str, on_terminal: bool) -> None:
    pieces = conversation.say(line)
    try:
        for piece in pieces:
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
        print(f"error: {error}", file=sys.stderr)  # such as a conversation that got too long
    print(flush=True)


def _terminal_lines() -> Iterator[str]:
    import readline  # noqa: F401 (gives input() editing and history)

    while True:
        try:
            line = input(PROMPT).strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            continue
        if line:
            yield line


def _piped_lines(lines: Iterable[str]) -> Iterator[str]:
    return (line.strip() for line in lines if line.strip())
