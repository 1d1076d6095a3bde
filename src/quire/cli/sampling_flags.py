"""Sampling parameters as flags, shared by the commands that generate text."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quire.sampling_params import SamplingParams

# Parameters besides the temperature that requests to any server may have.
COMMON_FLAGS: Mapping[str, tuple[type, str]] = {
    "top_p": (float, "sample from the likeliest tokens whose probabilities add up to X"),
    "top_k": (int, "sample from the N likeliest tokens"),
    "min_p": (float, "drop tokens less likely than X times the likeliest one"),
    "presence_penalty": (float, "penalise tokens that are in the output already"),
    "frequency_penalty": (float, "penalise tokens by how often they are in the output"),
    "repetition_penalty": (float, "factor against tokens of prompt and output; 1 is none"),
}
_FLAGS: Mapping[str, tuple[type, str]] = {
    "temperature": (float, "0 is greedy"),
    **COMMON_FLAGS,
    "min_tokens": (int, "do not stop before N tokens"),
    "truncate_prompt_tokens": (
        int,
        "keep only a prompt's last N tokens; -1: as many as leave room for max_tokens",
    ),
}
# Parameters that only some commands have flags for.
_FURTHER = ("n", "best_of", "logprobs")


def add_sampling_flags(
    parser: argparse.ArgumentParser, max_tokens: int, *, unless: str = ""
) -> None:
    """Add flags whose defaults are the model's, except for ``max_tokens``. ``unless`` ends its
    help, with the case in which that default does not hold."""
    group = parser.add_argument_group("sampling (defaults: the model's generation config)")
    group.add_argument(
        "--max-tokens",
        type=int,
        default=max_tokens,
        metavar="N",
        help=f"default {max_tokens}{unless}",
    )
    for name, (kind, help_text) in _FLAGS.items():
        group.add_argument(
            "--" + name.replace("_", "-"),
            type=kind,
            metavar="N" if kind is int else "X",
            help=help_text,
        )
    group.add_argument("--stop", nargs="+", metavar="TEXT", help="stop before any of these texts")
    group.add_argument(
        "--stop-token-ids", nargs="+", type=int, metavar="ID", help="stop after any of these"
    )
    group.add_argument(
        "--ignore-eos", action="store_true", help="continue after the end-of-sequence token"
    )


def check_sampling_flags(arguments: argparse.Namespace) -> None:
    """Raise the ``ValueError`` of a wrong value before the model is loaded."""
    from quire.sampling_params import SamplingParams

    sampling_params(arguments, SamplingParams())


def sampling_params(arguments: argparse.Namespace, defaults: SamplingParams) -> SamplingParams:
    """``defaults`` with the command line's values, except ``--seed``, which is the engine's."""
    given = vars(arguments)
    said = {name: given[name] for name in (*_FLAGS, *_FURTHER) if given.get(name) is not None}
    return dataclasses.replace(
        defaults,
        **said,
        max_tokens=arguments.max_tokens,
        stop=arguments.stop,
        stop_token_ids=arguments.stop_token_ids,
        ignore_eos=arguments.ignore_eos,
    )


def request_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """The flags that were given as fields of a request; the server has defaults for the others."""
    given = vars(arguments)
    names = (*_FLAGS, "max_tokens", "stop", "stop_token_ids")
    fields = {name: given[name] for name in names if given[name] is not None}
    return {**fields, **({"ignore_eos": True} if arguments.ignore_eos else {})}
