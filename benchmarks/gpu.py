"""The step on one GPU: is it right, how fast is it, and how far from what the GPU could do.

    python benchmarks/gpu.py [--models qwen3-0.6b ...] [--workloads decode256 ...] [--profile]

Weights are dummies of the real configs; greedy, EOS ignored, token ids drawn by `random.Random(0)`.
The ceilings are computed from what this GPU copies and multiplies, measured here: every weight and
every key and value read once a step, every multiplication done once. Results: RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gpu_models import CONFIGS, write_model

from quire import LLM, SamplingParams

READ_SHARE = 1.06  # reads alone run this much faster than a copy's reads and writes


def workload(name: str) -> tuple[list[list[int]], list[int]]:
    """Prompts and output lengths."""
    rng = random.Random(0)

    def ids(count: int) -> list[int]:
        return [rng.randint(300, 9999) for _ in range(count)]

    if name == "nano":
        prompts = [ids(rng.randint(100, 1024)) for _ in range(256)]
        return prompts, [rng.randint(100, 1024) for _ in prompts]
    if name == "single":
        return [ids(128)], [256]
    if name == "prefix":
        head = ids(2048)
        return [head + ids(64) for _ in range(256)], [64] * 256
    if name == "prefill":
        return [ids(4096) for _ in range(64)], [1] * 64
    if name == "long":
        return [ids(16384) for _ in range(16)], [128] * 16
    num_requests = int(name.removeprefix("decode"))
    return [ids(64) for _ in range(num_requests)], [256] * num_requests


@contextmanager
def engine(folder: Path, **options: Any) -> Iterator[LLM]:
    defaults = {"max_model_len": 20480, "load_format": "dummy", "disable_log_stats": True}
    with LLM(str(folder), skip_tokenizer_init=True, **{**defaults, **options}) as llm:
        yield llm
    torch.cuda.empty_cache()


def run(llm: LLM, prompts: list[list[int]], lengths: list[int]) -> tuple[float, list[list[int]]]:
    params = [
        SamplingParams(temperature=0.0, max_tokens=n, ignore_eos=True, detokenize=False)
        for n in lengths
    ]
    llm.reset_prefix_cache()
    torch.cuda.synchronize()
    started = time.perf_counter()
    outputs = llm.generate(prompt_token_ids=prompts, sampling_params=params, use_tqdm=False)
    took = time.perf_counter() - started
    return took, [list(output.outputs[0].token_ids) for output in outputs]


# -- ceilings --------------------------------------------------------------------------------------


def measure_ceilings() -> dict[str, float]:
    """Bytes read a second and bf16 operations a second, on this GPU, now."""
    source = torch.empty(1 << 31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy_s = _seconds(lambda: target.copy_(source))
    a, b = torch.randn(2, 8192, 8192, device="cuda", dtype=torch.bfloat16)
    product_s = _seconds(lambda: a @ b)
    return {
        "read_bytes_per_s": 2 * source.numel() / copy_s * READ_SHARE,
        "flop_per_s": 2 * 8192**3 / product_s,
    }


def _seconds(function: Any) -> float:
    times = []
    for _ in range(8):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return statistics.median(times[3:])


def ceiling_s(config: dict[str, Any], name: str, rates: dict[str, float]) -> float:
    """The least time for a workload: each step's reads, plus the prompts' multiplications."""
    prompts, lengths = workload(name)
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    head_dim = config.get("head_dim", hidden // config["num_attention_heads"])
    kv_width = config["num_key_value_heads"] * head_dim
    q_width = config["num_attention_heads"] * head_dim
    per_layer = hidden * (2 * q_width + 2 * kv_width) + 3 * hidden * config["intermediate_size"]
    weights = layers * per_layer
    weight_bytes = 2 * (weights + hidden * config["vocab_size"])
    token_bytes = 2 * 2 * kv_width * layers
    shared = 2048 if name == "prefix" else 0
    new_tokens = sum(len(prompt) - shared for prompt in prompts) + shared
    prompt_s = 2 * weights * new_tokens / rates["flop_per_s"]
    attention = (
        sum(2 * layers * q_width * len(prompt) ** 2 for prompt in prompts) if not shared else 0
    )
    decode_s = 0.0
    for step in range(1, max(lengths)):
        running = [len(p) + step for p, n in zip(prompts, lengths, strict=True) if n > step]
        kv = sum(running) - shared * (len(running) - 1)
        reads = weight_bytes + kv * token_bytes
        flop = 2 * len(running) * (weights + hidden * config["vocab_size"])
        decode_s += max(reads / rates["read_bytes_per_s"], flop / rates["flop_per_s"])
    return prompt_s + attention / rates["flop_per_s"] + decode_s


# -- correctness -----------------------------------------------------------------------------------


def check(root: Path, options: dict[str, Any]) -> None:
    """A tiny float32 model: the same greedy tokens as transformers, however the steps run."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        hidden_size=256, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2,
        head_dim=64, intermediate_size=512, vocab_size=2000, max_position_embeddings=1024,
    )  # fmt: skip
    folder = root / "tiny"
    model = Qwen3ForCausalLM(config).eval()
    model.save_pretrained(folder)
    model = model.cuda()
    rng = random.Random(1)
    prompts = [[rng.randrange(2000) for _ in range(rng.randint(1, 300))] for _ in range(64)]
    lengths = [rng.randint(8, 64) for _ in prompts]
    wanted = []
    for prompt, length in zip(prompts, lengths, strict=True):
        ids = torch.tensor([prompt], device="cuda")
        out = model.generate(ids, max_new_tokens=length, min_new_tokens=length, do_sample=False)
        wanted.append(out[0, len(prompt) :].tolist())
    variants = {
        "eager, depth 1": {"enforce_eager": True, "steps_in_flight": 1},
        "eager, depth 3": {"enforce_eager": True, "steps_in_flight": 3},
        "graphs, depth 1": {"steps_in_flight": 1},
        "graphs, depth 3": {"steps_in_flight": 3},
        "graphs, preempting": {"steps_in_flight": 2, "num_gpu_blocks_override": 40},
        "graphs, one row": {"steps_in_flight": 2, "max_num_seqs": 1},
    }
    sampled: list[list[int]] = []  # by the first variant, with every kind of sampling
    for name, variant in variants.items():
        tiny = {"load_format": "auto", "dtype": "float32", "max_model_len": 512}
        with engine(folder, **{**options, **tiny, **variant}) as llm:
            _, tokens = run(llm, prompts, lengths)
            drawn = sample(llm, prompts, lengths)
            stats = llm.stats()
        sampled = sampled or drawn
        equal = sum(a == b for a, b in zip(tokens, wanted, strict=True))
        same = sum(a == b for a, b in zip(drawn, sampled, strict=True))
        print(
            f"check {name:20} greedy {equal}/{len(wanted)} as transformers, sampled "
            f"{same}/{len(sampled)} as the first, {stats.num_preemptions} preemptions, "
            f"{stats.num_blocks - 1 - stats.num_free_blocks} blocks lost",
            flush=True,
        )


def sample(llm: LLM, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    """Tokens of requests that sample in different ways, all in one batch."""
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.8},
        {"temperature": 1.0, "top_k": 20, "top_p": 0.9},
        {"temperature": 0.0, "repetition_penalty": 1.3},
        {"temperature": 1.2, "min_p": 0.05, "n": 2},
        {"temperature": 0.0, "logprobs": 3},
    ]
    params = [
        SamplingParams(seed=i, max_tokens=n, ignore_eos=True, **kinds[i % len(kinds)])
        for i, n in enumerate(lengths)
    ]
    outputs = llm.generate(prompt_token_ids=prompts, sampling_params=params, use_tqdm=False)
    return [list(one.token_ids) for output in outputs for one in output.outputs]


# -- speed -----------------------------------------------------------------------------------------


def measure(
    folder: Path, config: dict[str, Any], names: list[str], rates: dict[str, float], args: Any,
    options: dict[str, Any],
) -> list[dict[str, Any]]:  # fmt: skip
    rows = []
    started = time.perf_counter()
    with engine(folder, **options) as llm:
        run(llm, [[5] * 64] * 2, [2, 2])
        print(
            f"{folder.name}: first tokens after {time.perf_counter() - started:.1f} s", flush=True
        )
        for name in names:
            prompts, lengths = workload(name)
            run(llm, prompts, lengths)  # the first time pays for kernels of new shapes
            took = statistics.median(run(llm, prompts, lengths)[0] for _ in range(args.repetitions))
            least = ceiling_s(config, name, rates)
            num_in, num_out = sum(map(len, prompts)), sum(lengths)
            row = {
                "model": folder.name, "workload": name, "s": round(took, 3),
                "tok_per_s_out": round(num_out / took), "tok_per_s_in": round(num_in / took),
                "ceiling_s": round(least, 3), "of_ceiling": round(least / took, 3),
            }  # fmt: skip
            rows.append(row)
            print(json.dumps(row), flush=True)
        if args.profile:
            profile(llm, *workload(args.profile))
    return rows


def profile(llm: LLM, prompts: list[list[int]], lengths: list[int]) -> None:
    """Where a workload's time goes on the GPU and on the host."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    with record(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as trace:
        run(llm, prompts, [min(n, 40) for n in lengths])
    averages = trace.key_averages()
    print(averages.table(sort_by="self_cuda_time_total", row_limit=22, max_name_column_width=60))
    print(averages.table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(CONFIGS), choices=list(CONFIGS))
    parser.add_argument(
        "--workloads", nargs="+", default=["single", "decode256", "nano", "prefill", "prefix"]
    )
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--profile", metavar="WORKLOAD", help="trace this workload as well")
    parser.add_argument("--no-check", action="store_true", help="speed only")
    parser.add_argument("--options", type=json.loads, default={}, help="engine arguments, as JSON")
    args = parser.parse_args()
    rates = measure_ceilings()
    print({name: f"{rate:.3e}" for name, rate in rates.items()}, flush=True)
    with tempfile.TemporaryDirectory() as root:
        if not args.no_check:
            check(Path(root), args.options)
        for name in args.models:
            folder = write_model(Path(root), name)
            measure(folder, CONFIGS[name], args.workloads, rates, args, args.options)


if __name__ == "__main__":
    main()
