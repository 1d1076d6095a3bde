"""The flags that say what is sent, and which datasets take each of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from quire.args import as_argument
from quire.bench.serving.datasets import DATASETS
from quire.bench.serving.requests import CHAT
from quire.bench.standard_workloads import NAMES
from quire.cli.parser import at_least
from quire.sizes import parse_count


@dataclass(frozen=True, slots=True)
class Option:
    """A flag that not every dataset takes; None where it was not given, until `settle_dataset`."""

    datasets: tuple[str, ...]
    default: Any = None
    shared: str | None = None  # the name for it that other datasets have too


_FILES = ("sharegpt", "custom")
OPTIONS: Mapping[str, Option] = {
    "num_prompts": Option(("random", *_FILES, "prefix_repetition"), 1000),
    "dataset_path": Option(_FILES),
    "input_len": Option(("random",)),
    "output_len": Option(("random", *_FILES)),
    "random_input_len": Option(("random",), 1024, "input_len"),
    "random_output_len": Option(("random",), 128, "output_len"),
    "random_prefix_len": Option(("random",), 0),
    "random_range_ratio": Option(("random",), 0.0),
    "prefix_repetition_prefix_len": Option(("prefix_repetition",), 256),
    "prefix_repetition_suffix_len": Option(("prefix_repetition",), 256),
    "prefix_repetition_num_prefixes": Option(("prefix_repetition",), 10),
    "prefix_repetition_output_len": Option(("prefix_repetition",), 128),
    "sharegpt_output_len": Option(("sharegpt",), None, "output_len"),
    "custom_output_len": Option(("custom",), 256, "output_len"),
    "skip_chat_template": Option(("custom",), False),
    "workload": Option(("standard",), "nano"),
    "scale": Option(("standard",), 1.0),
    "disable_shuffle": Option((*_FILES, "prefix_repetition"), False),
    "no_oversample": Option(_FILES, False),
}


def settle_dataset(arguments: argparse.Namespace) -> None:
    """Fill in what was not given; refuse what would be ignored."""
    dataset, given = arguments.dataset_name, vars(arguments)
    wrong = [
        f"{_flag(name)} (that is for {' and '.join(option.datasets)})"
        for name, option in OPTIONS.items()
        if given[name] is not None and dataset not in option.datasets
    ]
    if wrong:
        raise ValueError(
            f"--dataset-name {dataset} takes no {', no '.join(wrong)}; leave that out, or choose "
            "another dataset"
        )
    if given["skip_chat_template"] and arguments.backend == CHAT:
        raise ValueError(
            f"--skip-chat-template has no effect with --backend {CHAT}, whose server applies the "
            "chat template; leave it out, or choose --backend openai"
        )
    for name, option in OPTIONS.items():
        if option.shared is not None and dataset in option.datasets:
            _take_shared(given, name, option.shared)
        if given[name] is None:
            given[name] = option.default


def _take_shared(given: dict[str, Any], name: str, shared: str) -> None:
    """The value of ``name`` may be given as ``shared``, but not as both."""
    if given[shared] is None:
        return
    if given[name] is not None:
        raise ValueError(
            f"{_flag(shared)} {given[shared]} and {_flag(name)} {given[name]} say the same; give "
            "only one of them"
        )
    given[name] = given[shared]


def add_dataset_flags(group: Any) -> None:
    """Add the flags to ``group``, an argument group, for which argparse has no public name."""
    group.add_argument(
        "--dataset-name",
        default="random",
        choices=tuple(DATASETS),
        help="where the prompts come from; default random",
    )
    group.add_argument("--dataset-path", metavar="FILE", help="file of sharegpt or custom")
    group.add_argument("--tokenizer", metavar="NAME", help="folder or hub id; default: the model")
    group.add_argument(
        "--tokenizer-mode",
        default="auto",
        choices=("auto", "slow"),
        help="slow: the tokenizer written in Python; default auto",
    )
    group.add_argument("--trust-remote-code", action="store_true", help="run its own code")
    _add_lengths(group)
    group.add_argument(
        "--random-range-ratio",
        type=float,
        metavar="SHARE",
        help="vary both lengths by up to this share of them",
    )
    group.add_argument(
        "--custom-output-len",
        type=as_argument(custom_length),
        metavar="N",
        help="output tokens; default 256; -1: the output_tokens of each line",
    )
    _add_switch(group, "--skip-chat-template", "custom: send prompts as they are")
    group.add_argument(
        "--workload",
        metavar="NAME",
        help=f"for dataset standard: {', '.join(NAMES)}, or decodeN; default nano",
    )
    group.add_argument("--scale", type=float, metavar="SHARE", help="shorten the standard workload")
    _add_switch(group, "--disable-shuffle", "keep a dataset's order")
    _add_switch(group, "--no-oversample", "use no prompt twice")


def custom_length(text: str) -> int:
    """The value of --custom-output-len."""
    length = parse_count(text)
    if length < 1 and length != -1:
        raise ValueError(
            f"{text} is no output length; give at least 1, or -1 for that of each line"
        )
    return length


def _add_lengths(group: Any) -> None:
    for name, text in _LENGTHS.items():
        default = OPTIONS[name].default
        parse: Callable[[str], int] = at_least(0 if default == 0 else 1)
        shown = "" if default is None else f"; default {default}"
        group.add_argument(_flag(name), type=parse, metavar="N", help=text + shown)


_LENGTHS = {
    "input_len": "the same as --random-input-len",
    "output_len": "output tokens of random, sharegpt and custom",
    "random_input_len": "prompt tokens",
    "random_output_len": "output tokens",
    "random_prefix_len": "tokens that all prompts begin with",
    "prefix_repetition_prefix_len": "tokens that the prompts of a group begin with",
    "prefix_repetition_suffix_len": "tokens after them, different for each prompt",
    "prefix_repetition_num_prefixes": "number of groups",
    "prefix_repetition_output_len": "output tokens",
    "sharegpt_output_len": "output tokens, instead of the answers' lengths",
}


def _add_switch(group: Any, flag: str, text: str) -> None:
    group.add_argument(flag, action="store_true", default=None, help=text)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
