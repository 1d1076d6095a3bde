"""Flags that come from a YAML file or from environment variables.

They become the parser's defaults, so that flags on the command line win over the environment, and
the environment wins over the file. Every flag of `quire serve` has a variable. Other commands read
those of engine flags, and of the server's flags that they have themselves; they ignore settings
that are meant for the server.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from quire import compat, env, log
from quire.args import EngineArgs
from quire.cli.flags_file import flag_of, flag_words, read_flags_file
from quire.cli.parser import Parser
from quire.near_names import did_you_mean
from quire.server.args import ServerArgs
from quire.server.other_flags import VERDICTS

logger = logging.getLogger(__name__)

PREFIX = "QUIRE_"
_FILE_FLAG = "--config"
# Variables that are not just another way to give a flag; the code that uses them reads them.
_OTHER_MEANING = frozenset({env.API_KEY.names[0], env.ATTENTION_BACKEND.names[0]})
# What Kubernetes sets in every pod for a Service named "quire".
_SERVICE_LINK = re.compile(rf"{PREFIX}(SERVICE_\w+|PORT_\d+_\w+)")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def _fields(arguments: Any) -> frozenset[str]:
    return frozenset(item.name for item in dataclasses.fields(arguments))


_OF_ENGINE = _fields(EngineArgs) | compat.VERDICTS.keys()
_SERVER_FIELDS = _fields(ServerArgs)
_OF_SERVER = _SERVER_FIELDS | VERDICTS.keys()


def add_settings(parser: Parser) -> None:
    """Let the flags that ``parser`` has so far come from a file and the environment too."""
    parser.add_argument(
        _FILE_FLAG,
        metavar="FILE",
        help="YAML file of flags; the command line wins over it, and the last file over others",
    )
    flag = "Every flag" if _is_server(parser) else "Every flag that `quire serve` has too"
    parser.epilog = (
        f"{parser.epilog}\n{flag} can be an environment variable, --max-model-len as "
        f"{PREFIX}MAX_MODEL_LEN, or a line of the --config file. The command line wins over the "
        "environment, and that over the file."
    )
    parser.prepare = lambda words: _set_defaults(parser, words, os.environ)


def _set_defaults(parser: Parser, words: Sequence[str], environ: Mapping[str, str]) -> None:
    given = parser.destinations(words)
    if "url" in given:
        environ = {}  # it configures a local engine, and --url uses a server instead
    variable_names = [environ.get(f"{PREFIX}CONFIG", "").strip()]
    for name in filter(None, _file_names(words) or variable_names):
        file_words = _file_words(parser, name)
        parser.take_defaults(file_words, f"{name}: ", given)
        if "url" in parser.destinations(file_words):
            environ = {}  # as above
    for variable, flag in _variables(parser).items():
        action = parser.action_of(flag)
        text = environ.get(variable, "").strip()
        if action is None or not text or action.dest in given:
            continue
        source = f"environment variable {variable}={text!r}: "
        _check_address(variable, text)
        try:
            value = _from_text(action, text)
        except json.JSONDecodeError as error:
            parser.error(f"{source}{error}; write a JSON list, or words with commas between them")
        parser.take_defaults(flag_words(flag, action, value), source, given)
    if _is_server(parser) and "port" not in given:
        _check_other_port(environ)
    _warn_of_unknown(parser, environ)


def _is_server(parser: Parser) -> bool:
    return parser.action_of("--api-server-count") is not None


def _file_names(words: Sequence[str]) -> list[str]:
    names = []
    for index, word in enumerate(words):
        flag, has_value, value = word.partition("=")
        if flag == _FILE_FLAG:
            names.append(value if has_value else "".join(words[index + 1 : index + 2]))
    return [name for name in names if name]


def _file_words(parser: Parser, name: str) -> list[str]:
    """The flags of a YAML file as they would stand on the command line."""
    try:
        content = read_flags_file(name)
    except ValueError as error:
        parser.error(f"{_FILE_FLAG} {error}")
    words: list[str] = []
    of_server: list[str] = []
    for key, setting in content.items():
        flag = flag_of(str(key))
        if flag == _FILE_FLAG:
            parser.error(f"{name}: a file cannot name another {_FILE_FLAG} file")
        action = parser.action_of(flag)
        if action is None and flag[2:].partition(".")[0].replace("-", "_") in _OF_SERVER:
            of_server.append(flag)
        else:
            words += flag_words(flag, action, setting)
    if of_server:
        log.setup()
        logger.warning("%s: ignored, since this command has no %s", name, ", ".join(of_server))
    return words


def _from_text(action: argparse.Action, text: str) -> Any:
    """The value of a variable: for a flag of several words, a list, given as JSON or as words."""
    if isinstance(action, argparse.BooleanOptionalAction):
        return {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower(), text)
    if action.nargs != "+":
        return text
    return json.loads(text) if text.startswith("[") else text.replace(",", " ").split()


def _variables(parser: Parser) -> dict[str, str]:
    """Environment variable -> flag, for every flag of the command that has one."""
    flags = [flag for flag in parser.flags() if not flag.startswith(("--no-", "--help", "--conf"))]
    if not _is_server(parser):
        flags = [flag for flag in flags if _is_shared(parser, flag)]
    names = {PREFIX + flag[2:].replace("-", "_").upper(): flag for flag in flags}
    return {name: flag for name, flag in names.items() if name not in _OTHER_MEANING}


def _is_shared(parser: Parser, flag: str) -> bool:
    """Whether the flag, of a command that is no server, means the same as that of a server."""
    action = parser.action_of(flag)
    assert action is not None, flag
    is_shown = action.help != argparse.SUPPRESS
    return action.dest in _OF_ENGINE or (is_shown and action.dest in _SERVER_FIELDS)


def _check_address(variable: str, text: str) -> None:
    if _SERVICE_ADDRESS.match(text):
        service = variable.partition("_")[0].lower()
        raise ValueError(
            f"environment variable {variable}={text!r} is not a port: Kubernetes sets it for a "
            f"Service named {service!r}. Rename the Service, set enableServiceLinks: false in the "
            "pod, or choose the port with --port"
        )


def _check_other_port(environ: Mapping[str, str]) -> None:
    """Warn that ``VLLM_PORT`` has no effect: in vLLM too, it is not the port of the API."""
    text = environ.get("VLLM_PORT", "").strip()
    _check_address("VLLM_PORT", text)
    if text:
        log.setup()
        logger.warning("VLLM_PORT=%s has no effect; the port is --port or QUIRE_PORT", text)


def _warn_of_unknown(parser: Parser, environ: Mapping[str, str]) -> None:
    known = {*_variables(parser), f"{PREFIX}CONFIG"}
    known |= {name for variable in env.REGISTRY for name in variable.names}
    known |= {f"{PREFIX}{name.upper()}" for name in _OF_SERVER}
    for name in sorted(environ):
        is_ours = name.startswith(PREFIX) and not _SERVICE_LINK.fullmatch(name)
        if is_ours and name not in known:
            log.setup()
            logger.warning("unknown environment variable %s%s", name, did_you_mean(name, known))
