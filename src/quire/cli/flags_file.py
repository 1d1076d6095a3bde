"""A YAML file of flags: read whole, and its lines as they would stand on a command line.

Knows nothing about what the flags mean, nor which of them win.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MERGE = "<<"  # of YAML; what it brings in may be said again


@dataclass(frozen=True, slots=True)
class Setting:
    """What the file says of one flag."""

    value: Any  # as YAML means it
    written: str | list[str] | None  # a scalar, or a list of them, as it was written

    def for_flag(self, action: argparse.Action | None) -> Any:
        """A text is what was written: YAML would make 42798 of 0123456, and 1.1 of 1.10."""
        takes_text = action is not None and action.type in (None, str) and action.nargs != 0
        is_said = self.value is not None and self.written is not None
        return self.written if takes_text and is_said else self.value


def read_flags_file(name: str) -> Mapping[Any, Setting]:
    """``ValueError``, which begins with the name, where it cannot be read or says a thing twice."""
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
    """The flag of a line: underscores count as dashes, but in what a dot says of a JSON object."""
    name, dot, keys = key.partition(".")
    return f"--{name.replace('_', '-')}{dot}{keys}"


def flag_words(flag: str, action: argparse.Action | None, value: Any) -> list[str]:
    """One flag with a `Setting` or a value out of JSON, in words; ``action`` is what it sets, if
    known. What is empty, or a plain switch that is off, is left out."""
    if isinstance(value, Setting):
        value = value.for_flag(action)
    if "." in flag and not isinstance(value, str):  # a key of a JSON object
        return [f"{flag}={json.dumps(value, default=str)}"]  # of dates
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
    """What stands behind a key of the file; merged ones are there since it was constructed."""
    import yaml

    nodes = {key_node.value: node for key_node, node in root.value}
    node = nodes.get(key)  # None for a key that is no text
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    if isinstance(node, yaml.SequenceNode) and all(
        isinstance(one, yaml.ScalarNode) for one in node.value
    ):
        return [one.value for one in node.value]
    return None


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
        sign = ("", flag_of(key.value)) if are_flags else (key.tag, key.value)
        other = first.setdefault(sign, key)
        if other is not key and key.value != _MERGE:
            return (
                f"line {key.start_mark.line + 1} has {key.value!r} again, after {other.value!r} in "
                f"line {other.start_mark.line + 1}"
            )
    return None
