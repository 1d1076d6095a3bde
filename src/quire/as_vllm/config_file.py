"""``--config FILE`` for programs' own argument parsers: a YAML file as command-line words.

Knows nothing of what the flags mean. `quire serve` instead turns such a file into defaults.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from quire.cli.flags_file import flag_words, read_flags_file
from quire.cli.parser import Parser

_FLAG = "--config"


def with_config_file(parser: Parser, words: Sequence[str]) -> list[str]:
    """``words`` with the file's flags in place of its name; a mistake ends the program."""
    end = words.index("--") if "--" in words else len(words)
    places = [i for i, word in enumerate(words[:end]) if word.partition("=")[0] == _FLAG]
    if not places or _FLAG in parser.flags():  # a program's own --config may mean anything
        return list(words)
    if len(places) > 1:
        parser.error(f"{_FLAG} is given {len(places)} times; put all flags into one file")
    place = places[0]
    _, has_value, name = words[place].partition("=")
    rest = [*words[:place], *words[place + (1 if has_value else 2) :]]
    if not has_value:
        name = "".join(words[place + 1 : place + 2])
    if not name or name.startswith("--"):
        parser.error(f"{_FLAG} needs the name of a YAML file")
    # After a subcommand, whose flags they may be, and before the flags that are given.
    first = 1 if rest and not rest[0].startswith("-") else 0
    given = parser.destinations(rest)
    return [*rest[:first], *_words(_of_command(parser, rest[:first]), name, given), *rest[first:]]


def _of_command(parser: Parser, command: list[str]) -> Parser:
    """The parser of a subcommand's flags, if one is named."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and set(command) & set(action.choices):
            found = action.choices[command[0]]
            return found if isinstance(found, Parser) else parser
    return parser


def _words(parser: Parser, name: str, given: set[str]) -> list[str]:
    try:
        content = read_flags_file(name)
    except ValueError as error:
        parser.error(f"{_FLAG} {error}")
    words: list[str] = []
    for key, value in content.items():
        flag = f"--{key}"
        action = parser.action_of(flag)
        if action is None or action.dest not in given:
            words += flag_words(flag, action, value)
    return words
