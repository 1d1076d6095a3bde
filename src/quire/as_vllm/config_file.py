"""``--config FILE`` of programs' own parsers: the flags of a YAML file, in words.

Knows nothing of what the flags mean. `quire serve` has its own way, which makes them defaults.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quire.cli.parser import Parser

_FLAG = "--config"


def with_config_file(parser: Parser, words: Sequence[str]) -> list[str]:
    """``words`` with the file's flags in place of its name; a mistake ends the program."""
    end = words.index("--") if "--" in words else len(words)
    places = [i for i, word in enumerate(words[:end]) if word.partition("=")[0] == _FLAG]
    if not places or _FLAG in parser.flags():  # a program's own may mean anything
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
    # Behind a subcommand, whose flags they may be, and before those that are given.
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
    words: list[str] = []
    for key, value in _content(parser, name).items():
        flag = f"--{key}"
        action = parser.action_of(flag)
        if action is None or action.dest not in given:
            words += _one(flag, action, value)
    return words


def _content(parser: Parser, name: str) -> Mapping[Any, Any]:
    import yaml

    try:
        content = yaml.safe_load(Path(name).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        parser.error(f"{_FLAG} {name} cannot be read: {reason}")
    except yaml.YAMLError as error:
        parser.error(f"{_FLAG} {name} is not YAML: {' '.join(str(error).split())}")
    if content is not None and not isinstance(content, dict):
        parser.error(f"{_FLAG} {name} must hold lines like 'max-model-len: 4096'")
    return content or {}


def _one(flag: str, action: argparse.Action | None, value: Any) -> list[str]:
    """One flag in words; what is empty or switched off is left out."""
    if isinstance(action, argparse.BooleanOptionalAction):
        return [] if value is None else [f"{flag}={str(value).lower()}"]
    is_switch = action is None or action.nargs == 0
    if value is None or (value is False and is_switch):
        return []
    if value is True and is_switch:
        return [flag]
    if isinstance(value, list) and action is not None and action.nargs not in (None, 0):
        return [flag, *map(str, value)]
    if isinstance(value, (dict, list)):
        return [f"{flag}={json.dumps(value)}"]
    return [f"{flag}={value}"]
