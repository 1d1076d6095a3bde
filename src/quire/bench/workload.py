"""Random prompts of given lengths: the same seed gives the same token ids. Imports no torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from quire.cli.parser import at_least
from quire.prompts import TokensPrompt

# Ids below this are special tokens in most vocabularies.
FIRST_ID = 10


def add_workload_flags(parser: argparse.ArgumentParser, *, input_len: int, output_len: int) -> None:
    group = parser.add_argument_group("workload")
    group.add_argument(
        "--input-len",
        type=at_least(1),
        metavar="N",
        default=input_len,
        help=f"prompt tokens; default {input_len}",
    )
    group.add_argument(
        "--output-len",
        type=at_least(1),
        metavar="N",
        default=output_len,
        help=f"output tokens; default {output_len}",
    )


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
    if input_len < 1 or not 0 <= range_ratio < 1:
        raise ValueError(
            f"input_len={input_len} must be at least 1, and the range ratio {range_ratio} from 0 "
            "to below 1"
        )
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
    """Refuse a workload that the engine would cut, and so measure as another one."""
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
