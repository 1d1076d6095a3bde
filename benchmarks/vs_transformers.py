"""Quire against `generate` of transformers: the same random weights, prompts, dtype and threads.

Two workloads: mixed (32 requests, 32-256 tokens in, 32-128 out) and shared (16 requests that share
a prefix of 512 tokens, 16 of their own, 32 out). Greedy, EOS ignored. transformers gets padded
batches of the size that was fastest for it; it runs each batch to its longest output, and only
requested tokens count. The two take turns, medians are compared, and Quire's prefix cache is reset
before every turn. On another machine only the ratios are comparable.

    python benchmarks/vs_transformers.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import transformers
from tqdm import tqdm

from quire import LLM, SamplingParams

VOCAB_SIZE = 32_000
BATCH_SIZES = (4, 8, 16, 32)


@dataclass(frozen=True)
class Request:
    prompt: list[int]
    num_out: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    workload: str
    dtype: str
    num_tokens: int  # asked for, all requests together
    quire_s: list[float]  # per repetition
    transformers_s: list[float]
    transformers_batch: int
    equal: float  # share of requests with the same tokens from both

    @property
    def quire_tps(self) -> float:
        return self.num_tokens / statistics.median(self.quire_s)

    @property
    def transformers_tps(self) -> float:
        return self.num_tokens / statistics.median(self.transformers_s)

    @property
    def ratio(self) -> float:
        return self.quire_tps / self.transformers_tps


class QuireRunner:
    def __init__(self, folder: Path, dtype: str) -> None:
        self._llm = LLM(
            model=str(folder),
            skip_tokenizer_init=True,
            dtype=dtype,
            device="cpu",
            max_model_len=1024,
        )

    def run(self, requests: list[Request]) -> list[list[int]]:
        params = [
            SamplingParams(
                temperature=0.0, max_tokens=request.num_out, ignore_eos=True, detokenize=False
            )
            for request in requests
        ]
        outputs = self._llm.generate([r.prompt for r in requests], params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    def forget(self) -> None:
        assert self._llm.reset_prefix_cache()

    def close(self) -> None:
        self._llm.close()


class TransformersRunner:
    def __init__(self, folder: Path, dtype: str) -> None:
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        ).eval()

    def run(self, requests: list[Request], batch_size: int) -> list[list[int]]:
        outputs: list[list[int]] = []
        for first in range(0, len(requests), batch_size):
            outputs += self._run_batch(requests[first : first + batch_size])
        return outputs

    @torch.inference_mode()
    def _run_batch(self, requests: list[Request]) -> list[list[int]]:
        longest = max(len(r.prompt) for r in requests)
        num_out = max(r.num_out for r in requests)
        ids = torch.zeros(len(requests), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, request in enumerate(requests):
            ids[row, longest - len(request.prompt) :] = torch.tensor(request.prompt)
            mask[row, longest - len(request.prompt) :] = 1
        generated = self._model.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=num_out,
            eos_token_id=None,
            pad_token_id=0,
        )
        rows = generated[:, longest:].tolist()
        return [row[: r.num_out] for row, r in zip(rows, requests, strict=True)]


def mixed_requests() -> list[Request]:
    rng = random.Random(0)
    return [
        Request(_random_ids(rng, rng.randint(32, 256)), num_out=rng.randint(32, 128))
        for _ in range(32)
    ]


def shared_requests() -> list[Request]:
    rng = random.Random(1)
    prefix = _random_ids(rng, 512)
    return [Request(prefix + _random_ids(rng, 16), num_out=32) for _ in range(16)]


WORKLOADS = {"mixed": mixed_requests, "shared": shared_requests}
# Least speed relative to transformers, in bfloat16.
GOALS = {("mixed", "bfloat16"): 2.0, ("shared", "bfloat16"): 5.0}


def save_random_llama(folder: Path) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=512,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        intermediate_size=1536,
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def compare_all(folder: Path, dtype: str, repetitions: int) -> Iterator[Outcome]:
    """Yield one outcome per workload."""
    quire, peer = QuireRunner(folder, dtype), TransformersRunner(folder, dtype)
    for name, make_requests in WORKLOADS.items():
        yield compare(quire, peer, name, dtype, make_requests(), repetitions)
    quire.close()


def compare(
    quire: QuireRunner,
    peer: TransformersRunner,
    workload: str,
    dtype: str,
    requests: list[Request],
    repetitions: int,
) -> Outcome:
    sizes = [size for size in BATCH_SIZES if size <= len(requests)]
    with tqdm(total=len(sizes) + 2 * repetitions, desc=f"{workload} {dtype}") as bar:
        quire.run(requests[:2])  # warm-up; trying batch sizes warms up transformers
        trials = {}
        for size in sizes:
            trials[size], _ = _timed(partial(peer.run, requests, size), bar)
        best = min(trials, key=lambda size: trials[size])
        quire_s, peer_s = [], []
        for _ in range(repetitions):
            quire.forget()
            elapsed_s, ours = _timed(partial(quire.run, requests), bar)
            quire_s.append(elapsed_s)
            elapsed_s, theirs = _timed(partial(peer.run, requests, best), bar)
            peer_s.append(elapsed_s)
    return Outcome(
        workload=workload,
        dtype=dtype,
        num_tokens=sum(request.num_out for request in requests),
        quire_s=quire_s,
        transformers_s=peer_s,
        transformers_batch=best,
        equal=sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(requests),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dtype", choices=("bfloat16", "float32", "both"), default="both")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, help="default: what torch chooses here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    os.environ["QUIRE_NUM_THREADS"] = str(torch.get_num_threads())
    dtypes = ("bfloat16", "float32") if args.dtype == "both" else (args.dtype,)
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        save_random_llama(Path(folder))
        for dtype in dtypes:
            outcomes += compare_all(Path(folder), dtype, args.repetitions)
    _print_table(outcomes)
    if args.json:
        args.json.write_text(json.dumps([_as_json(o) for o in outcomes], indent=2) + "\n")


def _print_table(outcomes: list[Outcome]) -> None:
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, ", end="")
    print(f"{torch.get_num_threads()} threads; output tokens a second, medians")
    print(f"{'workload':9} {'dtype':9} {'quire':>8} {'transformers':>13} {'(batch)':>8} ", end="")
    print(f"{'ratio':>6} {'goal':>5} {'equal':>6}")
    for o in outcomes:
        goal = GOALS.get((o.workload, o.dtype))
        print(
            f"{o.workload:9} {o.dtype:9} {o.quire_tps:8.0f} {o.transformers_tps:13.0f} "
            f"{o.transformers_batch:8} {o.ratio:6.2f} {goal or '':>5} {o.equal:6.0%}"
        )


def _as_json(outcome: Outcome) -> dict[str, object]:
    return {
        **asdict(outcome),
        "quire_tps": outcome.quire_tps,
        "transformers_tps": outcome.transformers_tps,
        "ratio": outcome.ratio,
        "threads": torch.get_num_threads(),
    }


def _random_ids(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(10, VOCAB_SIZE) for _ in range(count)]


def _timed(run: Callable[[], list[list[int]]], bar: tqdm) -> tuple[float, list[list[int]]]:
    start = time.perf_counter()
    result = run()
    elapsed_s = time.perf_counter() - start
    bar.update()
    return elapsed_s, result


if __name__ == "__main__":
    main()
