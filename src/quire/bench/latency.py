"""Seconds from start to end of one batch of requests, measured several times."""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import TYPE_CHECKING, Any

from quire.args import add_hidden_flags
from quire.bench import other_flags
from quire.bench.report import add_output_flag, percentiles, write_json
from quire.bench.workload import (
    add_workload_flags,
    check_lengths,
    chosen_workload,
    random_prompts,
    settle_workload,
)
from quire.cli.engine_flags import add_engine_flags, open_llm
from quire.cli.parser import at_least
from quire.cli.remote_flags import refuse_served_name
from quire.compat import settle_other_flags

if TYPE_CHECKING:
    from quire.llm import LLM
    from quire.prompts import TokensPrompt
    from quire.sampling_params import SamplingParams

INPUT_LEN, OUTPUT_LEN = 32, 128
DEFAULTS = {
    "input_len": INPUT_LEN,
    "output_len": OUTPUT_LEN,
    "batch_size": 8,
    "n": 1,
    "use_beam_search": False,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_workload_flags(parser, input_len=INPUT_LEN, output_len=OUTPUT_LEN)
    parser.add_argument("--batch-size", metavar="N", type=at_least(1), help="requests; default 8")
    parser.add_argument(
        "--n", metavar="N", type=at_least(1), help="continuations of each; default 1"
    )
    parser.add_argument(
        "--use-beam-search",
        action="store_true",
        default=None,
        help="search with n beams, instead of sampling",
    )
    parser.add_argument(
        "--num-iters-warmup",
        metavar="N",
        type=at_least(0),
        default=2,
        help="batches first that do not count; default 2",
    )
    parser.add_argument(
        "--num-iters", metavar="N", type=at_least(1), default=10, help="batches; default 10"
    )
    add_output_flag(parser)
    add_hidden_flags(parser, other_flags.SHARED)
    add_engine_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    refuse_served_name(arguments)
    settle_other_flags(arguments, other_flags.SHARED)
    settle_workload(arguments, DEFAULTS)
    with open_llm(arguments) as llm:
        results = measure(llm, arguments)
    print(f"Avg latency: {results['avg_latency']:.4f} s")
    for percentile, seconds in results["percentiles"].items():
        print(f"P{percentile} latency: {seconds:.4f} s")
    write_json(arguments.output_json, results)
    return 0


def measure(llm: LLM, arguments: argparse.Namespace) -> dict[str, Any]:
    """Latencies of ``num_iters`` runs, each with an empty prefix cache."""
    prompts, params = requests(llm, arguments)
    latencies: list[float] = []
    for _ in range(arguments.num_iters_warmup + arguments.num_iters):
        llm.reset_prefix_cache()
        started = time.perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        latencies.append(time.perf_counter() - started)
    counted = latencies[arguments.num_iters_warmup :]
    return {
        "avg_latency": sum(counted) / len(counted),
        "latencies": counted,
        "percentiles": percentiles(counted),
    }


def requests(
    llm: LLM, arguments: argparse.Namespace
) -> tuple[list[TokensPrompt], list[SamplingParams]]:
    """Prompts and parameters of the batch; ``ValueError`` if one exceeds max_model_len."""
    from quire.prompts import TokensPrompt
    from quire.sampling_params import BeamSearchParams, SamplingParams

    model = llm.llm_engine.model_config
    vocab_size, max_model_len = model.get_vocab_size(), model.max_model_len
    common: dict[str, Any] = {"ignore_eos": True, "detokenize": False}
    if arguments.workload is not None:
        chosen = chosen_workload(arguments, vocab_size=vocab_size, max_model_len=max_model_len)
        return [TokensPrompt(prompt_token_ids=prompt) for prompt in chosen.prompts], [
            SamplingParams(temperature=0.0, max_tokens=n, **common) for n in chosen.output_lens
        ]
    lengths = [arguments.output_len] * arguments.batch_size
    prompts = random_prompts(
        arguments.batch_size, arguments.input_len, vocab_size=vocab_size, seed=arguments.seed
    )
    check_lengths(prompts, lengths, max_model_len)
    if arguments.use_beam_search:
        beams = BeamSearchParams(beam_width=arguments.n, max_tokens=arguments.output_len)
        one = dataclasses.replace(beams.to_sampling_params(), **common)
    else:
        one = SamplingParams(
            n=arguments.n, temperature=1.0, max_tokens=arguments.output_len, **common
        )
    return prompts, [one] * len(prompts)
