"""What a measurement runs: a standard workload, or random prompts of given lengths (the same seed
gives the same token ids). Imports no torch."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from quire.bench.standard_workloads import NAMES, Workload, standard_workload
from quire.cli.parser import at_least
from quire.prompts import TokensPrompt

# Ids below this are special tokens in most vocabularies.
FIRST_ID = 10


def add_workload_flags(parser: argparse.ArgumentParser, *, input_len: int, output_len: int) -> None:
    """Add the workload flags; `settle_workload` fills in those that were not given, which are None
    until then."""
    group = parser.add_argument_group("workload")
    group.add_argument(
        "--workload",
        metavar="NAME",
        help=f"a standard workload instead of random prompts: {', '.join(NAMES)}, or decodeN for N "
        "requests; greedy, every output to its full length",
    )
    group.add_argument(
        "--scale",
        type=float,
        metavar="SHARE",
        help="shorten all prompts and outputs of --workload to this share of their lengths",
    )
    group.add_argument(
        "--input-len",
        "--random-input-len",
        type=at_least(1),
        metavar="N",
        help=f"prompt tokens; default {input_len}",
    )
    group.add_argument(
        "--output-len",
        "--random-output-len",
        type=at_least(1),
        metavar="N",
        help=f"output tokens; default {output_len}",
    )


def settle_workload(arguments: argparse.Namespace, defaults: Mapping[str, Any]) -> None:
    """Fill in what was not given; refuse what a standard workload decides itself, and a seed that
    makes no prompts."""
    if arguments.workload is None:
        if arguments.scale is not None:
            raise ValueError("--scale shortens a standard workload; name one with --workload")
        if arguments.seed is not None and arguments.seed < 0:
            raise ValueError(f"--seed {arguments.seed} makes no prompts; give at least 0")
        for name, value in defaults.items():
            if getattr(arguments, name) is None:
                setattr(arguments, name, value)
        return
    given = [name for name in defaults if getattr(arguments, name) is not None]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(
            f"--workload {arguments.workload} decides what the requests are and how long; "
            f"leave out {flags}"
        )


def chosen_workload(
    arguments: argparse.Namespace, *, vocab_size: int, max_model_len: int
) -> Workload:
    """The standard workload that was named; ``ValueError`` if the engine would cut it."""
    scale = 1.0 if arguments.scale is None else arguments.scale
    workload = standard_workload(arguments.workload, scale=scale, vocab_size=vocab_size)
    workload.check_fits(max_model_len)
    return workload


def random_prompts(
    num_prompts: int,
    input_len: int,
    *,
    vocab_size: int,
    seed: int,
    prefix_len: int = 0,
    range_ratio: float = 0.0,
) -> list[TokensPrompt]:
    """Prompts of ``input_len`` tokens (varied by ``range_ratio``) after a prefix they share."""
    if not 0 <= range_ratio < 1:
        raise ValueError(f"--random-range-ratio must be at least 0 and below 1, got {range_ratio}")
    random = np.random.default_rng(seed)
    first = min(FIRST_ID, vocab_size - 1)
    prefix = random.integers(first, vocab_size, prefix_len).tolist()
    lengths = vary(random, input_len, range_ratio, num_prompts)
    return [
        TokensPrompt(prompt_token_ids=prefix + random.integers(first, vocab_size, n).tolist())
        for n in lengths
    ]


def check_lengths(
    prompts: Sequence[TokensPrompt], output_lens: Sequence[int], max_model_len: int
) -> None:
    """``ValueError`` for requests that exceed ``max_model_len``: cut, they would be others."""
    pairs = zip(prompts, output_lens, strict=True)
    num_prompt, num_output = max(
        ((len(prompt["prompt_token_ids"]), wanted) for prompt, wanted in pairs), key=sum
    )
    if num_prompt + num_output > max_model_len:
        raise ValueError(
            f"a prompt of {num_prompt} tokens and {num_output} of output are more than the "
            f"{max_model_len} of max_model_len; lower --input-len or --output-len"
        )


def vary(random: np.random.Generator, length: int, ratio: float, count: int) -> list[int]:
    """``count`` lengths, uniform within ``ratio`` of ``length``."""
    low, high = max(1, round(length * (1 - ratio))), round(length * (1 + ratio))
    return [int(n) for n in random.integers(low, high + 1, count)]
