"""Sampling parameters as flags, shared by the commands that generate text."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quire.sampling_params import SamplingParams

_FLAGS: dict[str, tuple[type, str]] = {
    "temperature": (float, "0 is greedy"),
    "top_p": (float, "keep the likeliest tokens with this much probability"),
    "top_k": (int, "keep this many of the likeliest tokens"),
    "min_p": (float, "drop tokens less likely than this share of the likeliest"),
    "presence_penalty": (float, "against tokens that have occurred"),
    "frequency_penalty": (float, "against tokens, by how often they have occurred"),
    "repetition_penalty": (float, "as presence, but a factor; 1 is none"),
    "min_tokens": (int, "do not stop before so many tokens"),
}
# Of the commands that have them.
_FURTHER = ("n", "best_of", "logprobs")


def add_sampling_flags(
    parser: argparse.ArgumentParser, max_tokens: int, *, unless: str = ""
) -> None:
    """Flags whose defaults are the model's own; only ``max_tokens`` has one here, ``unless`` says
    where it does not hold."""
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
    group.add_argument("--stop", nargs="+", metavar="TEXT", help="end before any of these")
    group.add_argument(
        "--stop-token-ids", nargs="+", type=int, metavar="ID", help="end after any of these"
    )
    group.add_argument(
        "--ignore-eos", action="store_true", help="go on after the end-of-text token"
    )


def check_sampling_flags(arguments: argparse.Namespace) -> None:
    """Raise the ``ValueError`` of a wrong value now, and not when the model is loaded."""
    from quire.sampling_params import SamplingParams

    sampling_params(arguments, SamplingParams())


def sampling_params(arguments: argparse.Namespace, defaults: SamplingParams) -> SamplingParams:
    """``defaults`` with what was said on the command line, where ``--seed`` is the engine's."""
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
    """What was said, as fields of a request to a server; the rest are the server's defaults."""
    given = vars(arguments)
    names = (*_FLAGS, "max_tokens", "stop", "stop_token_ids")
    fields = {name: given[name] for name in names if given[name] is not None}
    return {**fields, **({"ignore_eos": True} if arguments.ignore_eos else {})}
