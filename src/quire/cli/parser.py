"""An argument parser with the habits that users of other engines have.

Underscores in flags count as dashes, a switch may be given a value (``--flag=true``), a JSON flag
may be given key by key (``--hf-overrides.rope_theta 1e6``), and a typo gets a suggestion.
"""

from __future__ import annotations

import argparse
import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from quire.args import as_argument
from quire.near_names import did_you_mean
from quire.sizes import parse_count

_SWITCH_VALUES = {"true": True, "1": True, "false": False, "0": False}


def at_least(least: int) -> Callable[[str], int]:
    """The ``type`` of a flag that takes a whole number from ``least`` on."""

    def parse(text: str) -> int:
        number = parse_count(text)
        if number < least:
            raise ValueError(f"{text} is too small; give at least {least}")
        return number

    return as_argument(parse)


class Parser(argparse.ArgumentParser):
    """See the module's docstring. Abbreviated flags are off: they break when a flag is added."""

    def __init__(self, *, prog: str, description: str | None) -> None:
        super().__init__(
            prog=prog,
            usage="%(prog)s [options]",  # all flags by name would fill a screen
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """What ``words`` say; a mistake ends the program with status 2 and one line."""
        parsed, unknown = self.parse_known_args(self._normalise(words))
        if unknown:
            self.error(self._about_unknown(unknown[0]))
        return parsed

    def _about_unknown(self, word: str) -> str:
        if word.startswith("-"):
            flag = word.partition("=")[0]
            return f"unknown argument {flag}{did_you_mean(flag, self._visible_flags())}"
        takes_prompt = "--prompt" in self._option_string_actions
        hint = "; give a text as --prompt TEXT and the model as --model MODEL"
        return f"unexpected word {word!r}{hint if takes_prompt else ''}"

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")

    def _visible_flags(self) -> list[str]:
        return [
            flag
            for action in self._actions
            if action.help != argparse.SUPPRESS
            for flag in action.option_strings
        ]

    def _normalise(self, words: Sequence[str]) -> list[str]:
        """``words`` as plain argparse understands them."""
        result: list[str] = []
        dotted: dict[str, dict[str, Any]] = {}  # flag -> the object put together from its parts
        whole: set[str] = set()  # flags that were given in one piece
        rest = deque(words)
        while rest and rest[0] != "--":
            word = rest.popleft()
            if not word.startswith("--"):
                result.append(word)
                continue
            name, has_value, value = word.partition("=")
            name, _, key = name.partition(".")
            flag = name.replace("_", "-")
            if key:
                if not has_value:
                    value = rest.popleft() if rest and not rest[0].startswith("--") else "null"
                if not _put(dotted.setdefault(flag, {}), key.split("."), value):
                    self.error(f"{word}: an earlier one is in the way")
            elif self._is_switch(flag):
                if not has_value and rest and rest[0].lower() in ("true", "false"):
                    value = rest.popleft()
                result.append(self._switch(flag, value or "true"))
            else:
                whole.add(flag)
                result.append(flag + has_value + value)
        for flag in sorted(whole & dotted.keys()):
            self.error(f"{flag} is given as JSON and key by key; choose one of the two")
        objects = [word for flag, value in dotted.items() for word in (flag, json.dumps(value))]
        return [*result, *objects, *rest]

    def _is_switch(self, flag: str) -> bool:
        return isinstance(self._option_string_actions.get(flag), argparse.BooleanOptionalAction)

    def _switch(self, flag: str, value: str) -> str:
        if value.lower() not in _SWITCH_VALUES:
            self.error(f"{flag}={value}: expected true or false")
        return flag if _SWITCH_VALUES[value.lower()] else flag.replace("--", "--no-", 1)


def _put(target: dict[str, Any], keys: list[str], text: str) -> bool:
    """Set the value under a path of keys; False where an earlier one is in the way."""
    for key in keys[:-1]:
        inner = target.setdefault(key, {})
        if not isinstance(inner, dict):
            return False
        target = inner
    if isinstance(target.get(keys[-1]), dict):
        return False
    try:
        target[keys[-1]] = json.loads(text)
    except json.JSONDecodeError:
        target[keys[-1]] = text
    return True
