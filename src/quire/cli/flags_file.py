"""Reads a YAML file of flags, and turns its lines into words of a command line.

Knows nothing about what the flags mean, nor which of them win.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MERGE = "<<"  # YAML's merge key, which may occur more than once


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of one flag in the file."""

    value: Any  # as YAML parses it
    written: str | list[str] | None  # source text of a scalar or of a list of them; else None

    def for_flag(self, action: argparse.Action | None) -> Any:
        """The value for ``action``. One that takes text gets the source text: YAML would turn
        0123456 into 42798, and 1.10 into 1.1."""
        takes_text = action is not None and action.type in (None, str) and action.nargs != 0
        is_said = self.value is not None and self.written is not None
        return self.written if takes_text and is_said else self.value


def read_flags_file(name: str) -> Mapping[Any, Setting]:
    """Key -> setting; ``ValueError``, beginning with ``name``, for an unreadable file or a repeated
    key."""
    import yaml

    try:
        text = Path(name).expanduser().read_text(encoding="utf-8")
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        repeated = _repeated_key(root)
        content = None if root is None else loader.construct_document(root)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"{name} cannot be read: {reason}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is not YAML: {' '.join(str(error).split())}") from None
    if repeated is not None:
        raise ValueError(f"{name}: {repeated}; keep one of them")
    if content is not None and not isinstance(content, dict):
        raise ValueError(f"{name} must hold lines like 'max-model-len: 4096'")
    return {key: Setting(value, _written(root, key)) for key, value in (content or {}).items()}


def flag_of(key: str) -> str:
    """The flag for a key: dashes for underscores, but not after a dot, where JSON keys begin."""
    name, dot, keys = key.partition(".")
    return f"--{name.replace('_', '-')}{dot}{keys}"


def flag_words(flag: str, action: argparse.Action | None, value: Any) -> list[str]:
    """Command-line words for a flag and its value, a `Setting` or JSON; ``action`` is the flag's,
    if known. There are none for an empty value or a plain switch that is off."""
    if isinstance(value, Setting):
        value = value.for_flag(action)
    if "." in flag and not isinstance(value, str):  # a key of a JSON object
        return [f"{flag}={json.dumps(value, default=str)}"]  # str: for dates
    if value is None:
        return []
    if isinstance(action, argparse.BooleanOptionalAction):
        return [f"{flag}={value}"]
    if action is not None and action.nargs == 0 and isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, list) and action is not None and action.nargs not in (None, 0):
        return [flag, *map(str, value)]
    if isinstance(value, (dict, list)):
        return [f"{flag}={json.dumps(value, default=str)}"]
    return [f"{flag}={value}"]


def _written(root: Any, key: Any) -> str | list[str] | None:
    """The source text of a key's value, or None. ``root`` has merged keys too: constructing the
    document has put them there."""
    import yaml

    nodes = {key_node.value: node for key_node, node in root.value}
    node = nodes.get(key)  # None for a key that is not a string
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    if isinstance(node, yaml.SequenceNode) and all(
        isinstance(one, yaml.ScalarNode) for one in node.value
    ):
        return [one.value for one in node.value]
    return None


def _repeated_key(root: Any) -> str | None:
    """An error about the first key that a mapping in ``root`` has twice, or None. YAML itself would
    take the last one."""
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
    """An error about the first repeated key, or None; ``are_flags``: spellings of one flag are
    equal."""
    first: dict[tuple[str, str], Any] = {}
    for key in keys:
        sign = ("", flag_of(key.value)) if are_flags else (key.tag, key.value)
        other = first.setdefault(sign, key)
        if other is not key and key.value != _MERGE:
            return (
                f"line {key.start_mark.line + 1} has {key.value!r} again, after {other.value!r} in "
                f"line {other.start_mark.line + 1}"
            )
    return None
