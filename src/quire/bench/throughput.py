"""Tokens a second over many requests that are all submitted at the start."""

from __future__ import annotations

import argparse
import dataclasses
import random
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from quire.args import add_hidden_flags
from quire.bench import other_flags
from quire.bench.report import add_output_flag, write_json
from quire.bench.serving.datasets import (
    MOST_TOKENS,
    dataset_file,
    first_turns,
    oversampled,
    usual_requests,
)
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
from quire.compat import settle_other_flags

if TYPE_CHECKING:
    from quire.llm import LLM
    from quire.prompts import TokensPrompt
    from quire.sampling_params import SamplingParams

INPUT_LEN = OUTPUT_LEN = 128
# Flags that --workload replaces, with their defaults. These are of both data sets.
_SHARED = {"dataset_name": None, "dataset_path": None, "num_prompts": 64, "n": 1}
_RANDOM_ONLY = {"input_len": INPUT_LEN, "prefix_len": 0, "random_range_ratio": 0.0}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "random": {**_SHARED, **_RANDOM_ONLY, "output_len": OUTPUT_LEN},
    "sharegpt": {**_SHARED, "output_len": None},  # None: as long as the answers in the file
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_workload_flags(parser, input_len=INPUT_LEN, output_len=OUTPUT_LEN)
    _add_request_flags(parser)
    parser.add_argument(
        "--num-iters", metavar="N", type=at_least(1), default=1, help="repetitions; the best counts"
    )
    parser.add_argument(
        "--backend",
        choices=("quire", "vllm"),
        default="quire",
        help="for scripts written for vLLM; both names mean Quire's engine",
    )
    add_output_flag(parser)
    add_hidden_flags(parser, other_flags.OF_THROUGHPUT)
    add_engine_flags(parser)


def _add_request_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--dataset-name",
        choices=tuple(DEFAULTS),
        help="where the prompts come from; default random, or sharegpt if a file is given",
    )
    parser.add_argument(
        "--dataset-path",
        "--dataset",
        metavar="FILE",
        help="file of sharegpt; its questions are the prompts, its answers give output lengths",
    )
    parser.add_argument("--num-prompts", metavar="N", type=at_least(1), help="requests; default 64")
    parser.add_argument(
        "--n", metavar="N", type=at_least(1), help="continuations of each; default 1"
    )
    parser.add_argument(
        "--prefix-len",
        "--random-prefix-len",
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


def run(arguments: argparse.Namespace) -> int:
    refuse_served_name(arguments)
    settle_other_flags(arguments, other_flags.OF_THROUGHPUT)
    _settle(arguments)
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


def _settle(arguments: argparse.Namespace) -> None:
    """Fill in defaults; before the model loads, ``ValueError`` for flags without effect or for a
    missing file."""
    if arguments.workload is not None:
        settle_workload(arguments, DEFAULTS["random"])
        return
    has_file = arguments.dataset_path is not None
    dataset = arguments.dataset_name or ("sharegpt" if has_file else "random")
    others = _RANDOM_ONLY if dataset == "sharegpt" else ("dataset_path",)
    given = [name for name in others if getattr(arguments, name) is not None]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"the data set {dataset} makes no use of {flags}; leave that out")
    settle_workload(arguments, DEFAULTS[dataset])
    arguments.dataset_name = dataset
    if dataset == "sharegpt":
        dataset_file(arguments)


def measure(llm: LLM, arguments: argparse.Namespace) -> dict[str, Any]:
    """The best of ``num_iters`` runs, each with an empty prefix cache."""
    prompts, params = requests(llm, arguments)
    # A small first run pays one-time costs, which are not part of throughput.
    warmup = [dataclasses.replace(one, max_tokens=2) for one in params[:2]]
    llm.generate(prompts[:2], warmup, use_tqdm=False)
    best, outputs = float("inf"), []
    for _ in range(arguments.num_iters):
        llm.reset_prefix_cache()
        started = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        best = min(best, time.perf_counter() - started)
    num_prompt = sum(len(output.prompt_token_ids or ()) for output in outputs)
    num_output = sum(len(one.token_ids) for output in outputs for one in output.outputs)
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
    """Prompts and parameters of requests that run to their full lengths; ``ValueError`` if one
    exceeds max_model_len."""
    from quire.prompts import TokensPrompt
    from quire.sampling_params import SamplingParams

    model = llm.llm_engine.model_config
    vocab_size, max_model_len = model.get_vocab_size(), model.max_model_len
    if arguments.workload is None and arguments.dataset_name == "sharegpt":
        return _sharegpt_requests(llm, arguments)
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
    """Random prompts, whose outputs are sampled at temperature 1."""
    import numpy as np

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
    check_lengths(prompts, lengths, max_model_len)
    return prompts, _sampled(arguments.n, lengths)


def _sharegpt_requests(
    llm: LLM, arguments: argparse.Namespace
) -> tuple[list[TokensPrompt], list[SamplingParams]]:
    """Questions of the ShareGPT file that fit, with their answers, in max_model_len tokens."""
    from quire.prompts import TokensPrompt

    tokenizer, max_model_len = llm.get_tokenizer(), llm.llm_engine.model_config.max_model_len
    turns = first_turns(dataset_file(arguments))
    random.Random(arguments.seed).shuffle(turns)
    found = usual_requests(
        turns,
        lambda text: len(tokenizer.encode(text)),
        num_prompts=arguments.num_prompts,
        output_len=arguments.output_len,
        most_tokens=min(MOST_TOKENS, max_model_len),
    )
    if not found:
        raise ValueError(
            f"{arguments.dataset_path} has no question of usual length that fits with its answer "
            f"in the {max_model_len} tokens of max_model_len; give another file"
        )
    chosen = oversampled(found, arguments.num_prompts, arguments.seed)
    prompts = [TokensPrompt(prompt_token_ids=tokenizer.encode(str(one.prompt))) for one in chosen]
    return prompts, _sampled(arguments.n, [one.num_output_tokens for one in chosen])


def _sampled(n: int, output_lens: Sequence[int]) -> list[SamplingParams]:
    from quire.sampling_params import SamplingParams

    common: dict[str, Any] = {"n": n, "temperature": 1.0, "ignore_eos": True, "detokenize": False}
    return [
        SamplingParams(seed=index, max_tokens=length, **common)
        for index, length in enumerate(output_lens)
    ]
