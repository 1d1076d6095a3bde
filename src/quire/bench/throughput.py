"""Tokens a second over many requests that are all there at the start."""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import TYPE_CHECKING, Any

from quire.bench.report import add_output_flag, write_json
from quire.bench.workload import (
    add_workload_flags,
    check_lengths,
    chosen_workload,
    random_prompts,
    settle_workload,
    vary,
)
from quire.cli.engine_flags import add_engine_flags, open_llm
from quire.cli.parser import at_least
from quire.cli.remote_flags import refuse_served_name

if TYPE_CHECKING:
    from quire.llm import LLM
    from quire.prompts import TokensPrompt
    from quire.sampling_params import SamplingParams

INPUT_LEN = OUTPUT_LEN = 128
DEFAULTS = {
    "input_len": INPUT_LEN,
    "output_len": OUTPUT_LEN,
    "num_prompts": 64,
    "prefix_len": 0,
    "random_range_ratio": 0.0,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_workload_flags(parser, input_len=INPUT_LEN, output_len=OUTPUT_LEN)
    parser.add_argument("--num-prompts", metavar="N", type=at_least(1), help="requests; default 64")
    parser.add_argument(
        "--prefix-len",
        metavar="N",
        type=at_least(0),
        help="tokens that all prompts begin with; default 0",
    )
    parser.add_argument(
        "--random-range-ratio",
        type=float,
        metavar="SHARE",
        help="vary both lengths by up to this share of them",
    )
    parser.add_argument(
        "--num-iters", metavar="N", type=at_least(1), default=1, help="repetitions; the best counts"
    )
    parser.add_argument(
        "--backend",
        choices=("quire", "vllm"),
        default="quire",
        help="in scripts for vLLM: whose engine; both names mean this one",
    )
    add_output_flag(parser)
    add_engine_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    refuse_served_name(arguments)
    settle_workload(arguments, DEFAULTS)
    with open_llm(arguments) as llm:
        results = measure(llm, arguments)
    print(
        f"Throughput: {results['requests_per_second']:.2f} requests/s, "
        f"{results['tokens_per_second']:.2f} total tokens/s, "
        f"{results['output_tokens_per_second']:.2f} output tokens/s"
    )
    print(
        f"{results['num_requests']} requests, {results['total_num_prompt_tokens']} prompt tokens, "
        f"{results['total_num_output_tokens']} output tokens, {results['elapsed_time']:.3f} s"
    )
    write_json(arguments.output_json, results)
    return 0


def measure(llm: LLM, arguments: argparse.Namespace) -> dict[str, Any]:
    """The best of ``num_iters`` runs, each with an empty prefix cache."""
    prompts, params = requests(llm, arguments)
    # A first small run takes one-time costs, which are no part of throughput.
    warmup = [dataclasses.replace(one, max_tokens=2) for one in params[:2]]
    llm.generate(prompts[:2], warmup, use_tqdm=False)
    best, outputs = float("inf"), []
    for _ in range(arguments.num_iters):
        llm.reset_prefix_cache()
        started = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        best = min(best, time.perf_counter() - started)
    num_prompt = sum(len(output.prompt_token_ids or ()) for output in outputs)
    num_output = sum(len(output.outputs[0].token_ids) for output in outputs)
    return {
        "elapsed_time": best,
        "num_requests": len(prompts),
        "total_num_tokens": num_prompt + num_output,
        "requests_per_second": len(prompts) / best,
        "tokens_per_second": (num_prompt + num_output) / best,
        "total_num_prompt_tokens": num_prompt,
        "total_num_output_tokens": num_output,
        "output_tokens_per_second": num_output / best,
    }


def requests(
    llm: LLM, arguments: argparse.Namespace
) -> tuple[list[TokensPrompt], list[SamplingParams]]:
    """Every one runs to its full length; ``ValueError`` if the engine would cut one."""
    from quire.prompts import TokensPrompt
    from quire.sampling_params import SamplingParams

    model = llm.llm_engine.model_config
    vocab_size, max_model_len = model.get_vocab_size(), model.max_model_len
    if arguments.workload is None:
        return random_requests(arguments, vocab_size, max_model_len)
    chosen = chosen_workload(arguments, vocab_size=vocab_size, max_model_len=max_model_len)
    params = [
        SamplingParams(temperature=0.0, ignore_eos=True, max_tokens=n, detokenize=False)
        for n in chosen.output_lens
    ]
    return [TokensPrompt(prompt_token_ids=prompt) for prompt in chosen.prompts], params


def random_requests(
    arguments: argparse.Namespace, vocab_size: int, max_model_len: int
) -> tuple[list[TokensPrompt], list[SamplingParams]]:
    """Random prompts that are sampled at random."""
    import numpy as np

    from quire.sampling_params import SamplingParams

    prompts = random_prompts(
        arguments.num_prompts,
        arguments.input_len,
        vocab_size=vocab_size,
        seed=arguments.seed,
        prefix_len=arguments.prefix_len,
        range_ratio=arguments.random_range_ratio,
    )
    lengths = vary(
        np.random.default_rng(arguments.seed + 1),
        arguments.output_len,
        arguments.random_range_ratio,
        arguments.num_prompts,
    )
    params = [
        SamplingParams(temperature=1.0, seed=index, ignore_eos=True, max_tokens=n, detokenize=False)
        for index, n in enumerate(lengths)
    ]
    check_lengths(prompts, lengths, max_model_len)
    return prompts, params
