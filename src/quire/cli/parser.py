"""An argument parser with the habits that users of other engines have.

Underscores in flags count as dashes, a switch may be given a value (``--flag=true``), a JSON flag
may be given key by key (``--hf-overrides.rope_theta 1e6``; ``--hf-overrides.architectures+ X`` adds
to a list), and a typo gets a suggestion.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Container, Sequence
from typing import Any, NoReturn

from quire import compat, env
from quire.args import as_argument, verdict_of
from quire.near_names import did_you_mean
from quire.sizes import parse_count

_BECOMES = {"alias": "is another name: ", "noted": "has no effect: ", "refused": "is refused: "}
_SAME_WORDS = {"tls": ("ssl",), "ssl": ("tls",), "https": ("ssl", "tls")}  # in searches of the help
# Short flags of other engines; a command may have its own flag of the same name. Those of one
# letter are unknown to argparse, which would read the text "-not" as "-n ot".
_LONG_FLAGS = {
    "-n": "--nnodes",
    "-r": "--node-rank",
    **{
        short: "--" + name.replace("_", "-")
        for name, verdict in compat.VERDICTS.items()
        for short in verdict.short
    },
}
_SWITCH_VALUES = {"true": True, "1": True, "false": False, "0": False}


def at_least(least: int) -> Callable[[str], int]:
    """The argparse ``type`` of a flag that takes a whole number of at least ``least``."""

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
            "epilog": "--help=WORD shows the group of that name and the flags that mention it.",
        }
        super().__init__(prog=prog, description=description, **{**defaults, **options})
        self._source = ""  # where the words being read come from; begins error lines
        # Called with the words before they are read; may set defaults.
        self.prepare: Callable[[Sequence[str]], None] = lambda words: None

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse the command line; a mistake ends the program with status 2 and one line."""
        for word in words:
            if word.startswith("--help="):
                self.exit(0, self._help_about(word.partition("=")[2]))
            if word.startswith("-h="):
                self.error(f"{word}: write the word after --help, as --help={word[3:]}")
        self.prepare(words)
        parsed = self.read(words)
        parsed.flags_given = self.destinations(words)  # not from a file or variable
        return parsed

    def read(self, words: Sequence[str], source: str = "") -> argparse.Namespace:
        """Parse ``words`` without `prepare`; error lines begin with ``source``, their origin."""
        self._source = source
        parsed, unknown = self.parse_known_args(self._normalise(words))
        if unknown:
            self.error(self._about_unknown(unknown[0]))
        self._source = ""
        return parsed

    def take_defaults(self, words: Sequence[str], source: str, given: Container[str]) -> None:
        """Make the values in ``words``, which come from ``source``, the defaults of all flags but
        those ``given``. A required flag that is among ``words`` is required no longer."""
        required = [action for action in self._actions if action.required]
        for action in required:
            action.required = False
        said = vars(self.read(words, source))
        names = self.destinations(words)
        self.set_defaults(**{name: said[name] for name in names if name not in given})
        for action in required:
            action.required = action.dest not in names

    def action_of(self, flag: str) -> argparse.Action | None:
        """The action of a flag like ``--max_model_len`` or ``--no-enable-lora``; None: unknown."""
        found = self._flag_of(flag)
        return None if found is None else self._option_string_actions.get(found[0])

    def flags(self) -> list[str]:
        """Every long flag, the hidden ones of other engines included."""
        return [flag for flag in self._option_string_actions if flag.startswith("--")]

    def destinations(self, words: Sequence[str]) -> set[str]:
        """The attributes of the parsed namespace that the flags in ``words`` set."""
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
        """The help of the group named ``topic`` and of all flags that mention it."""
        if topic.lower() == "all":
            return self.format_help()
        found = self.about(topic)
        verdicts = verdicts_about(topic, [self], by_reason=not found)
        others = [*variables_about(topic), *verdicts]
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
        """By group, the flags of the group named ``topic`` and all that mention it."""
        found: dict[str, list[argparse.Action]] = {}
        for group in self._action_groups:
            title = str(group.title)
            is_meant = title.lower() == topic.lower()
            for action in group._group_actions:
                fits = is_meant or _mentions(action, topic)
                if fits and action.help != argparse.SUPPRESS:
                    found.setdefault(title, []).append(action)
        return found

    def verdicts(self) -> dict[str, str]:
        """Other engines' flags, and what becomes of each."""
        return {
            action.option_strings[0]: _BECOMES[verdict.kind] + verdict.message
            for action in self._actions
            if (verdict := verdict_of(action)) is not None
        }

    def line(self, action: argparse.Action) -> str:
        """A flag with its help."""
        formatter = self._get_formatter()
        names = formatter._format_action_invocation(action)
        return f"{names}  {formatter._expand_help(action)}" if action.help else names

    def topics(self) -> list[str]:
        """Group titles and visible flags: what a mistyped topic may have meant."""
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
            word = self._apart(rest.popleft())
            found = self._flag_of(word) if word.startswith("-") else None
            if found is None or not found[0].startswith("--"):
                result.append(word)
                continue
            flag, key = found
            _, has_value, value = word.partition("=")
            if key and flag in self._option_string_actions:
                if not self._takes_object(flag):
                    self.error(f"{word}: {flag} takes no JSON object; write it without .{key}")
                if not has_value:
                    value = rest.popleft() if rest and self._is_value(rest[0]) else "null"
                if not _put(dotted.setdefault(flag, {}), key.split("."), value):
                    self.error(
                        f"{word}: an earlier flag gives this key another kind of value; leave out "
                        "one of the two"
                    )
            elif self._is_switch(flag):
                if not has_value and rest and rest[0].lower() in ("true", "false"):
                    value = rest.popleft()
                result.append(self._switch(flag, value or "true"))
            else:
                whole.add(flag)
                result.append(flag + word[len(_name_of(word)) :])
        for flag in sorted(whole & dotted.keys()):
            self.error(f"{flag} is given as JSON and key by key; choose one of the two")
        objects = [word for flag, value in dotted.items() for word in (flag, json.dumps(value))]
        return [*result, *objects, *rest]

    def _flag_of(self, word: str) -> tuple[str, str] | None:
        """The flag in ``word``, as it was added, and the key after its dot; None for a text: as in
        argparse, a word that has a space and does not begin with a known flag."""
        word = self._apart(word)
        name = _name_of(word)
        key = word.partition("=")[0][len(name) + 1 :]
        flag = self._registered(name)
        is_known = flag in self._option_string_actions or self._is_abbreviation(flag)
        return (flag, key) if (is_known and " " not in key) or " " not in word else None

    def _apart(self, word: str) -> str:
        """``-n=2`` for ``-n2``, if the short flag is another engine's; else ``word``."""
        flag, number = word[:2], word[2:]
        is_theirs = flag in _LONG_FLAGS and self._registered(flag) != flag
        return f"{flag}={number}" if is_theirs and number.isdecimal() else word

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
        """The flag as it was added, a long one for another engine's short one; an unknown one
        with dashes for its underscores."""
        actions = self._option_string_actions
        long = _LONG_FLAGS.get(flag, "")
        if long in actions and actions.get(flag, actions[long]) is actions[long]:
            return long
        return flag if flag in actions else flag.replace("_", "-")

    def _is_switch(self, flag: str) -> bool:
        return isinstance(self._option_string_actions.get(flag), argparse.BooleanOptionalAction)

    def _switch(self, flag: str, value: str) -> str:
        if value.lower() not in _SWITCH_VALUES:
            self.error(f"{flag}={value}: expected true or false")
        return flag if _SWITCH_VALUES[value.lower()] else flag.replace("--", "--no-", 1)


def variables_about(topic: str) -> list[str]:
    """A line for each environment variable whose name contains ``topic``."""
    near = (one for one in env.REGISTRY if any(_contains(name, topic) for name in one.names))
    return [f"{' or '.join(one.names)} (environment variable)  {one.help}" for one in near]


def verdicts_about(
    topic: str, parsers: Sequence[Parser], *, by_reason: bool
) -> dict[str, list[str]]:
    """A line for each of other engines' flags whose name contains ``topic``, with the commands that
    have it; if there is none and ``by_reason``, for those whose explanation contains it."""
    verdicts = [(*one, parser.prog) for parser in parsers for one in parser.verdicts().items()]
    found = [one for one in verdicts if _contains(one[0], topic)]
    if not found and by_reason:
        found = [one for one in verdicts if _contains(one[1], topic)]
    having: dict[str, list[str]] = {}
    for flag, line, command in found:
        having.setdefault(f"{flag} {line}", []).append(command)
    return having


def _mentions(action: argparse.Action, word: str) -> bool:
    choices = map(str, action.choices or ())
    return _contains(" ".join([*action.option_strings, *choices, action.help or ""]), word)


def _contains(text: str, word: str) -> bool:
    core = _dashed(word.lstrip("-"))
    return any(one in _dashed(text) for one in (core, *_SAME_WORDS.get(core, ())))


def _dashed(text: str) -> str:
    return text.lower().replace("_", "-")


def _name_of(word: str) -> str:
    """The flag in ``word`` as it is written, without its value and the key after its dot."""
    return word.partition("=")[0].partition(".")[0]


def _put(target: dict[str, Any], keys: list[str], text: str) -> bool:
    """Set the value (JSON, or else text) at a path of keys; False: an earlier value conflicts.

    A last key that ends with ``+`` adds the texts between commas to a list, as in vLLM.
    """
    for key in keys[:-1]:
        inner = target.setdefault(key, {})
        if not isinstance(inner, dict):
            return False
        target = inner
    last = keys[-1].removesuffix("+")
    if last != keys[-1]:
        so_far = target.setdefault(last, [])
        if isinstance(so_far, list):
            so_far += text.split(",")
        return isinstance(so_far, list)
    if isinstance(target.get(last), dict):
        return False
    try:
        target[last] = json.loads(text)
    except json.JSONDecodeError:
        target[last] = text
    return True
