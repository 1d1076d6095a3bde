"""An argument parser with the habits that users of other engines have.

Underscores in flags count as dashes, a switch may be given a value (``--flag=true``), a JSON flag
may be given key by key (``--hf-overrides.rope_theta 1e6``), and a typo gets a suggestion.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Container, Sequence
from typing import Any, NoReturn

from quire import compat, env
from quire.args import as_argument
from quire.near_names import did_you_mean
from quire.server import other_flags
from quire.sizes import parse_count

_BECOMES = {"alias": "is another name: ", "noted": "has no effect: ", "refused": "is refused: "}
_SAME_WORDS = {"tls": ("ssl",), "ssl": ("tls",), "https": ("ssl", "tls")}  # in searches of the help
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

    def __init__(self, *, prog: str, description: str | None, **options: Any) -> None:
        """``options`` are others of `argparse.ArgumentParser`."""
        defaults: dict[str, Any] = {
            "usage": "%(prog)s [options]",  # all flags by name would fill a screen
            "allow_abbrev": False,
            "formatter_class": argparse.RawDescriptionHelpFormatter,
            "epilog": "--help=GROUP shows one group, --help=WORD the flags that have to do with "
            "it.",
        }
        super().__init__(prog=prog, description=description, **{**defaults, **options})
        self._source = ""  # of the words that are being read, for error lines
        # Called with the words before they are read; may set defaults.
        self.prepare: Callable[[Sequence[str]], None] = lambda words: None

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """What ``words`` say; a mistake ends the program with status 2 and one line."""
        for word in words:
            if word.startswith("--help="):
                self.exit(0, self._help_about(word.partition("=")[2]))
            if word.startswith("-h="):
                self.error(f"{word}: a word stands behind --help, as --help={word[3:]}")
        self.prepare(words)
        parsed = self.read(words)
        parsed.flags_given = self.destinations(words)  # here, and neither in a file nor a variable
        return parsed

    def read(self, words: Sequence[str], source: str = "") -> argparse.Namespace:
        """The same for words from elsewhere; error lines begin with ``source``."""
        self._source = source
        parsed, unknown = self.parse_known_args(self._normalise(words))
        if unknown:
            self.error(self._about_unknown(unknown[0]))
        self._source = ""
        return parsed

    def take_defaults(self, words: Sequence[str], source: str, given: Container[str]) -> None:
        """Make what ``words`` from elsewhere say the defaults, but for flags that are ``given``.
        A flag that the command line must have may stand there instead."""
        required = [action for action in self._actions if action.required]
        for action in required:
            action.required = False
        said = vars(self.read(words, source))
        names = self.destinations(words)
        self.set_defaults(**{name: said[name] for name in names if name not in given})
        for action in required:
            action.required = action.dest not in names

    def action_of(self, flag: str) -> argparse.Action | None:
        """What a flag like ``--max_model_len`` or ``--no-enable-lora`` sets, if it is known."""
        found = self._flag_of(flag)
        return None if found is None else self._option_string_actions.get(found[0])

    def flags(self) -> list[str]:
        """Every long flag, those of other engines too."""
        return [flag for flag in self._option_string_actions if flag.startswith("--")]

    def destinations(self, words: Sequence[str]) -> set[str]:
        """The names of what ``words`` set by flags."""
        actions = (self.action_of(word) for word in words if word.startswith("-"))
        return {action.dest for action in actions if action is not None}

    def _about_unknown(self, word: str) -> str:
        flag = word.partition("=")[0]
        if flag.startswith("-") and " " not in flag:
            near = did_you_mean(flag.partition(".")[0], self._visible_flags())
            return f"unknown argument {flag}{near}"
        takes_prompt = "--prompt" in self._option_string_actions
        hint = "; give a text as --prompt TEXT and the model as --model MODEL"
        return f"unexpected word {word!r}{hint if takes_prompt else ''}"

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {self._source}{message}\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End the program; help goes to standard output, errors do not."""
        print(message or "", end="", file=sys.stderr if status else sys.stdout)
        sys.exit(status)

    def _help_about(self, topic: str) -> str:
        """The help of a group of that name, or of all flags that have to do with a word."""
        found = self.about(topic)
        others = [*variables_about(topic), *self.verdicts_about(topic, by_reason=not found)]
        if not found and not others:
            self.error(f"no help about {topic!r}{did_you_mean(topic, self.topics())}")
        formatter = self._get_formatter()
        for title, actions in found.items():
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
        lines = "".join(f"{line}\n" for line in others)
        return "\n".join(part for part in (formatter.format_help(), lines) if part)

    def about(self, topic: str) -> dict[str, list[argparse.Action]]:
        """The flags of the group of that name, or those that have to do with a word, by group."""
        titles = [str(group.title) for group in self._action_groups]
        is_title = topic.lower() in map(str.lower, titles)
        found: dict[str, list[argparse.Action]] = {}
        for title, group in zip(titles, self._action_groups, strict=True):
            for action in group._group_actions:
                fits = title.lower() == topic.lower() if is_title else _mentions(action, topic)
                if fits and action.help != argparse.SUPPRESS:
                    found.setdefault(title, []).append(action)
        return found

    def verdicts_about(self, topic: str, *, by_reason: bool) -> list[str]:
        """What becomes of other engines' flags whose name has to do with a word; if there is none,
        on request of those whose reason has."""
        verdicts = {**compat.VERDICTS, **other_flags.VERDICTS}
        hidden = {
            action.option_strings[0]: verdicts[action.dest]
            for action in self._actions
            if action.help == argparse.SUPPRESS and action.dest in verdicts
        }
        lines = {flag: _BECOMES[one.kind] + one.message for flag, one in hidden.items()}
        near = [f"{flag} {line}" for flag, line in lines.items() if _contains(flag, topic)]
        if near or not by_reason:
            return near
        return [f"{flag} {line}" for flag, line in lines.items() if _contains(line, topic)]

    def line(self, action: argparse.Action) -> str:
        """A flag with its help."""
        formatter = self._get_formatter()
        names = formatter._format_action_invocation(action)
        return f"{names}  {formatter._expand_help(action)}" if action.help else names

    def topics(self) -> list[str]:
        """What `about` knows something of, but for words of the help."""
        return [
            *(str(group.title).lower() for group in self._action_groups),
            *self._visible_flags(),
        ]

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
            found = self._flag_of(word) if word.startswith("--") else None
            if found is None:
                result.append(word)
                continue
            flag, key = found
            _, has_value, value = word.partition("=")
            if key and flag in self._option_string_actions:
                if not self._takes_object(flag):
                    self.error(f"{word}: {flag} holds no JSON object; write it without .{key}")
                if not has_value:
                    value = rest.popleft() if rest and self._is_value(rest[0]) else "null"
                if not _put(dotted.setdefault(flag, {}), key.split("."), value):
                    self.error(f"{word}: an earlier one is in the way")
            elif self._is_switch(flag):
                if not has_value and rest and rest[0].lower() in ("true", "false"):
                    value = rest.popleft()
                result.append(self._switch(flag, value or "true"))
            else:
                whole.add(flag)
                result.append(flag + word[len(flag) :])
        for flag in sorted(whole & dotted.keys()):
            self.error(f"{flag} is given as JSON and key by key; choose one of the two")
        objects = [word for flag, value in dotted.items() for word in (flag, json.dumps(value))]
        return [*result, *objects, *rest]

    def _flag_of(self, word: str) -> tuple[str, str] | None:
        """The flag in ``word``, as it was added, and the key behind its dot; None for a text, which
        is to argparse what has a space and begins with no flag that there is."""
        name, _, key = word.partition("=")[0].partition(".")
        flag = self._registered(name)
        is_known = flag in self._option_string_actions or self._is_abbreviation(flag)
        return (flag, key) if (is_known and " " not in key) or " " not in word else None

    def _is_abbreviation(self, flag: str) -> bool:
        return self.allow_abbrev and any(one.startswith(flag) for one in self.flags())

    def _is_value(self, word: str) -> bool:
        return not word.startswith("--") or self._flag_of(word) is None

    def _takes_object(self, flag: str) -> bool:
        try:
            return isinstance(self._get_value(self._option_string_actions[flag], "{}"), dict)
        except argparse.ArgumentError:
            return False

    def _registered(self, flag: str) -> str:
        """The flag as it was added; one that never was has dashes."""
        dashed = flag.replace("_", "-")
        return flag if flag in self._option_string_actions else dashed

    def _is_switch(self, flag: str) -> bool:
        return isinstance(self._option_string_actions.get(flag), argparse.BooleanOptionalAction)

    def _switch(self, flag: str, value: str) -> str:
        if value.lower() not in _SWITCH_VALUES:
            self.error(f"{flag}={value}: expected true or false")
        return flag if _SWITCH_VALUES[value.lower()] else flag.replace("--", "--no-", 1)


def variables_about(topic: str) -> list[str]:
    """The environment variables whose name has to do with a word."""
    near = (one for one in env.REGISTRY if any(_contains(name, topic) for name in one.names))
    return [f"{' or '.join(one.names)} (environment variable)  {one.help}" for one in near]


def _mentions(action: argparse.Action, word: str) -> bool:
    choices = map(str, action.choices or ())
    return _contains(" ".join([*action.option_strings, *choices, action.help or ""]), word)


def _contains(text: str, word: str) -> bool:
    core = _dashed(word.lstrip("-"))
    return any(one in _dashed(text) for one in (core, *_SAME_WORDS.get(core, ())))


def _dashed(text: str) -> str:
    return text.lower().replace("_", "-")


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
