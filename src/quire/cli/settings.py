"""Flags from elsewhere: a YAML file, and an environment variable for every flag.

They become the parser's defaults, so that flags on the command line win over the environment, and
the environment wins over the file. Knows nothing about what the flags mean.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quire import env, log
from quire.cli.parser import Parser
from quire.near_names import did_you_mean

logger = logging.getLogger(__name__)

PREFIX = "QUIRE_"
_FILE_FLAG = "--config"
_MERGE = "<<"  # of YAML; what it brings in may be said again
# Variables that are more than another way to give a flag; who uses them reads them.
_OTHER_MEANING = frozenset({env.API_KEY.names[0], env.ATTENTION_BACKEND.names[0]})
# What Kubernetes sets in every pod for a Service named "quire".
_SERVICE_LINK = re.compile(rf"{PREFIX}(SERVICE_\w+|PORT_\d+_\w+)")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def add_settings(parser: Parser) -> None:
    """Let the flags that ``parser`` has been given come from a file and the environment too."""
    parser.add_argument(
        _FILE_FLAG, metavar="FILE", help="YAML file of flags; those on the command line win"
    )
    parser.epilog = (
        f"{parser.epilog}\nEvery flag can be an environment variable, --max-model-len as "
        f"{PREFIX}MAX_MODEL_LEN, or a line of the --config file. The command line wins over the "
        "environment, and that over the file."
    )
    parser.prepare = lambda words: _set_defaults(parser, words, os.environ)


def _set_defaults(parser: Parser, words: Sequence[str], environ: Mapping[str, str]) -> None:
    given = parser.destinations(words)
    name = _file_name(words) or environ.get(f"{PREFIX}CONFIG", "").strip()
    if name:
        _take(parser, _file_words(parser, name), f"{name}: ")
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
        _take(parser, _words(flag, action, value), source)
    if "port" not in given:
        _check_other_port(environ)
    _warn_of_unknown(parser, environ)


def _take(parser: Parser, words: list[str], source: str) -> None:
    """Make what the words say the defaults."""
    said = vars(parser.read(words, source))
    parser.set_defaults(**{name: said[name] for name in parser.destinations(words)})


def _file_name(words: Sequence[str]) -> str:
    for index, word in enumerate(words):
        flag, has_value, value = word.partition("=")
        if flag == _FILE_FLAG:
            return value if has_value else "".join(words[index + 1 : index + 2])
    return ""


def _file_words(parser: Parser, name: str) -> list[str]:
    """The flags of a YAML file as they would stand on the command line."""
    import yaml

    try:
        text = Path(name).expanduser().read_text(encoding="utf-8")
        repeated = _repeated_key(yaml.compose(text, Loader=yaml.SafeLoader))
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        parser.error(f"{_FILE_FLAG} {name} cannot be read: {reason}")
    except yaml.YAMLError as error:
        parser.error(f"{_FILE_FLAG} {name} is not YAML: {' '.join(str(error).split())}")
    if repeated is not None:
        parser.error(f"{_FILE_FLAG} {name}: {repeated}; keep one of them")
    if content is None:
        return []
    if not isinstance(content, dict):
        parser.error(f"{_FILE_FLAG} {name} must hold lines like 'max-model-len: 4096'")
    words: list[str] = []
    for key, value in content.items():
        flag = f"--{str(key).replace('_', '-')}"
        if flag == _FILE_FLAG:
            parser.error(f"{name}: a file cannot name another {_FILE_FLAG} file")
        words += _words(flag, parser.action_of(flag), value)
    return words


def _repeated_key(root: Any) -> str | None:
    """What is wrong with a key of a YAML node that its mapping has already, of which YAML itself
    would take the last one; None if there is none."""
    import yaml

    waiting, seen = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            repeated = _first_repeated(keys, are_flags=node is root)
            if repeated is not None:
                return repeated
            waiting += [value for _, value in node.value]
    return None


def _first_repeated(keys: Sequence[Any], *, are_flags: bool) -> str | None:
    """Two spellings of a flag are the same one."""
    first: dict[tuple[str, str], Any] = {}
    for key in keys:
        sign = ("", key.value.replace("_", "-")) if are_flags else (key.tag, key.value)
        other = first.setdefault(sign, key)
        if other is not key and key.value != _MERGE:
            return (
                f"line {key.start_mark.line + 1} has {key.value!r} again, after {other.value!r} in "
                f"line {other.start_mark.line + 1}"
            )
    return None


def _words(flag: str, action: argparse.Action | None, value: Any) -> list[str]:
    """One flag with a value out of YAML or JSON, in words."""
    if value is None:
        return []
    if isinstance(value, list) and action is not None and action.nargs == "+":
        return [flag, *map(str, value)]
    if isinstance(value, (dict, list)):
        return [f"{flag}={json.dumps(value)}"]
    return [f"{flag}={value}"]


def _from_text(action: argparse.Action, text: str) -> Any:
    """The value of a variable; flags that take several words have JSON, or words in a row."""
    if isinstance(action, argparse.BooleanOptionalAction):
        return {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower(), text)
    if action.nargs != "+":
        return text
    return json.loads(text) if text.startswith("[") else text.replace(",", " ").split()


def _variables(parser: Parser) -> dict[str, str]:
    """Variable -> its flag."""
    flags = [flag for flag in parser.flags() if not flag.startswith(("--no-", "--help", "--conf"))]
    names = {PREFIX + flag[2:].replace("-", "_").upper(): flag for flag in flags}
    return {name: flag for name, flag in names.items() if name not in _OTHER_MEANING}


def _check_address(variable: str, text: str) -> None:
    if _SERVICE_ADDRESS.match(text):
        service = variable.partition("_")[0].lower()
        raise ValueError(
            f"environment variable {variable}={text!r} is not a port: Kubernetes sets it for a "
            f"Service named {service!r}. Rename the Service, set enableServiceLinks: false in the "
            "pod, or choose the port with --port"
        )


def _check_other_port(environ: Mapping[str, str]) -> None:
    """Of vLLM, where it is not the port of the API either."""
    text = environ.get("VLLM_PORT", "").strip()
    _check_address("VLLM_PORT", text)
    if text:
        log.setup()
        logger.warning("VLLM_PORT=%s has no effect; the port is --port or QUIRE_PORT", text)


def _warn_of_unknown(parser: Parser, environ: Mapping[str, str]) -> None:
    known = {*_variables(parser), f"{PREFIX}CONFIG"}
    known |= {name for variable in env.REGISTRY for name in variable.names}
    for name in sorted(environ):
        is_ours = name.startswith(PREFIX) and not _SERVICE_LINK.fullmatch(name)
        if is_ours and name not in known:
            log.setup()
            logger.warning("unknown environment variable %s%s", name, did_you_mean(name, known))
