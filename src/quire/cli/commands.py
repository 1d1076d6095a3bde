"""The table of subcommands, and how one is found and run."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import quire
from quire import env
from quire.cli.parser import Parser, variables_about, verdicts_about
from quire.near_names import did_you_mean

USAGE_ERROR = 2
HELP_WORD = "--help=WORD the flags that mention a word"


class CommandModule(Protocol):
    """What a subcommand's module offers."""

    def add_arguments(self, parser: Parser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand: a module, or a table of further ones."""

    help: str
    module: str = ""
    commands: Mapping[str, Command] | None = None


COMMANDS: Mapping[str, Command] = {
    "serve": Command("serve a model over HTTP", "quire.cli.serve"),
    "generate": Command("continue prompts", "quire.cli.generate"),
    "chat": Command("talk to a model, here or on a server", "quire.cli.chat"),
    "complete": Command("let a server continue prompts", "quire.cli.complete"),
    "run-batch": Command("answer a file of requests", "quire.cli.run_batch"),
    "demo": Command("watch the bundled model answer", "quire.cli.demo"),
    "plan": Command("what a model needs in memory, without loading it", "quire.cli.plan"),
    "models": Command("which architectures are supported", "quire.cli.models"),
    "bench": Command(
        "measure",
        commands={
            "throughput": Command("tokens a second over many requests", "quire.bench.throughput"),
            "latency": Command("seconds for one batch", "quire.bench.latency"),
            "startup": Command("seconds until the first token", "quire.bench.startup"),
            "serve": Command("latencies and throughput of a server", "quire.bench.serve"),
        },
    ),
    "collect-env": Command("versions and hardware, for a bug report", "quire.cli.collect_env"),
}


def dispatch(program: str, commands: Mapping[str, Command], argv: list[str]) -> int:
    """Run the command that ``argv`` begins with."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview(program, commands))
        return 0 if argv else USAGE_ERROR
    if argv[0].startswith("--help="):
        return _print_help_about(program, commands, argv[0].partition("=")[2])
    if argv[0] in ("-V", "--version"):
        print(_version())
        return 0
    if argv[0].startswith("-h="):
        print(
            f"{program}: error: {argv[0]}: write the word after --help, as --help={argv[0][3:]}",
            file=sys.stderr,
        )
        return USAGE_ERROR
    name = argv[0].replace("_", "-")
    if name not in commands:
        hint = did_you_mean(name, commands)
        hint = hint or f"; the commands are {', '.join(commands)}"
        if name == "help":
            hint = f"; `{program} --help` lists them, and {HELP_WORD}"
        print(f"{program}: error: there is no command {argv[0]!r}{hint}", file=sys.stderr)
        return USAGE_ERROR
    command = commands[name]
    if command.commands is not None:
        return dispatch(f"{program} {name}", command.commands, argv[1:])
    module, parser = _load(f"{program} {name}", command)
    arguments = parser.parse(argv[1:])
    arguments.command_line = [*program.split()[1:], name, *argv[1:]]
    return module.run(arguments)


def _load(program: str, command: Command) -> tuple[CommandModule, Parser]:
    module: CommandModule = importlib.import_module(command.module)
    parser = Parser(prog=program, description=module.__doc__)
    module.add_arguments(parser)
    return module, parser


def _parsers(program: str, commands: Mapping[str, Command]) -> Iterator[Parser]:
    for name, command in commands.items():
        if command.commands is None:
            yield _load(f"{program} {name}", command)[1]
        else:
            yield from _parsers(f"{program} {name}", command.commands)


def _print_help_about(program: str, commands: Mapping[str, Command], topic: str) -> int:
    """Print all commands' flags that mention ``topic``, each once, with the commands that have it.

    Other engines' flags and environment variables follow. The exit status.
    """
    parsers = list(_parsers(program, commands))
    having: dict[str, list[str]] = {}
    for parser in parsers:
        for actions in parser.about(topic).values():
            for action in actions:
                having.setdefault(parser.line(action), []).append(parser.prog)
    variables = variables_about(topic)
    verdicts = verdicts_about(topic, parsers, by_reason=not having)
    if not having and not variables and not verdicts:
        known = dict.fromkeys(topic for parser in parsers for topic in parser.topics())
        hint = did_you_mean(topic, known)
        print(f"{program}: error: no help about {topic!r}{hint}", file=sys.stderr)
        return USAGE_ERROR
    for line, names in (*having.items(), *verdicts.items()):
        print(f"{line}\n    of {', '.join(names)}")
    for line in variables:
        print(line)
    return 0


def _version() -> str:
    """Quire's version; under the name `vllm` first vLLM's, which programs compare."""
    if not env.AS_VLLM.get():
        return quire.__version__
    return f"{env.VLLM_VERSION} (the interface of vLLM that Quire {quire.__version__} follows)"


def _overview(program: str, commands: Mapping[str, Command]) -> str:
    width = max(map(len, commands))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in commands.items()]
    return "\n".join(
        [
            f"usage: {program} COMMAND ...",
            "",
            "commands:",
            *lines,
            "",
            f"`{program} COMMAND --help` describes one of them, and `{program} --help=WORD` lists",
            "the flags of all of them that mention a word.",
        ]
    )
