"""The unit that checks answers on the device: tiny float32 models against transformers, in every
way of running steps; how far bf16 differs, and why; every kernel against its reference in torch.
"""

from __future__ import annotations

import importlib.util
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quire import LLM, SamplingParams

from .differences import Difference, Request, differences
from .engines import greedy, open_llm, run
from .records import Records
from .rounding import compare_rounding
from .units import DoItem, Unit

ROOT = Path(__file__).parents[2]
KERNEL_TESTS = "tests/unit/kernels"
KERNELS, BF16, TOKENS = "kernels", "bf16", "tokens:"
NUM_REQUESTS = 64
NUM_ALONE = 12
MAX_MODEL_LEN = 512
TIE = 1e-4  # between float32 logits

# The first model runs in every way, the others in `WAYS_OF_OTHERS`.
PREEMPTING = "graphs, preempting"
WAYS: dict[str, dict[str, Any]] = {
    "eager, depth 1": {"enforce_eager": True, "steps_in_flight": 1},
    "graphs, depth 3": {"steps_in_flight": 3},
    "eager, depth 3": {"enforce_eager": True, "steps_in_flight": 3},
    "graphs, depth 1": {"steps_in_flight": 1},
    PREEMPTING: {"steps_in_flight": 2, "num_gpu_blocks_override": 40},
    "graphs, one row": {"steps_in_flight": 2, "max_num_seqs": 1},
}
WAYS_OF_OTHERS = ("eager, depth 1", "graphs, depth 3")

Tokens = list[list[int]]


@contextmanager
def checks_unit(unit: Unit, records: Records) -> Iterator[DoItem]:
    """Items: `KERNELS`, `BF16`, and `TOKENS` followed by the name of a tiny model."""
    engine: dict[str, Any] = unit.options["engine"]

    def do(item: str) -> None:
        if item == KERNELS:
            check_kernels(records)
            return
        with tempfile.TemporaryDirectory() as folder:
            if item == BF16:
                check_bf16(Path(folder), engine, records)
            else:
                check_tokens(item.removeprefix(TOKENS), Path(folder), engine, records)

    yield do


def random_requests(vocab_size: int, count: int = NUM_REQUESTS) -> tuple[Tokens, list[int]]:
    """Prompts and output lengths."""
    rng = random.Random(1)
    prompts = [
        [rng.randrange(vocab_size) for _ in range(rng.randint(1, 300))] for _ in range(count)
    ]
    return prompts, [rng.randint(8, 64) for _ in prompts]


# -- float32: the same tokens as transformers ------------------------------------------------------


def check_tokens(model: str, folder: Path, engine: dict[str, Any], records: Records) -> None:
    """Check that the first way's greedy tokens are those of transformers, and that every other way
    gives the first way's tokens: in a batch, alone, with requests that arrive while others run, and
    sampled. Rounding must explain any difference."""
    from .tiny_models import TINY_MODELS, VOCAB_SIZE, save_tiny_model

    save_tiny_model(model, folder)
    prompts, lengths = random_requests(VOCAB_SIZE)
    ways = WAYS if model == next(iter(TINY_MODELS)) else {way: WAYS[way] for way in WAYS_OF_OTHERS}
    first: Answers | None = None
    for way, options in ways.items():
        tiny = {"load_format": "auto", "dtype": "float32", "max_model_len": MAX_MODEL_LEN}
        with open_llm(folder, **{**tiny, **engine, **options}) as llm:
            answers = answer(llm, prompts, lengths)
            stats = llm.stats()
        device = engine.get("device", "cuda")
        result: dict[str, tuple[int, int]] = {}
        if first is None:
            first = answers
            right = num_as_transformers(folder, prompts, answers.batch, device)
            result["transformers"] = (right, len(prompts))
        are_right = all(right == total for right, total in result.values())
        result |= answers.equal(first)
        found = answers.differences(first, prompts, lengths, folder, device)
        lost = stats.num_blocks - 1 - stats.num_free_blocks
        is_idle = way == PREEMPTING and not stats.num_preemptions  # then it was not tested
        passed = are_right and not lost and not is_idle and all(one.is_explained for one in found)
        records.add(
            "check", what=f"{model}, {way}", passed=passed, blocks_lost=lost, equal=result,
            preemptions=stats.num_preemptions, differences=[one.text for one in found],
        )  # fmt: skip
        text = ", ".join(f"{name} {equal}/{total}" for name, (equal, total) in result.items())
        line = (
            f"check {'ok  ' if passed else 'FAIL'} {model}, {way}: equal {text}; "
            f"{stats.num_preemptions} preemptions, {lost} blocks lost"
        )
        print("\n    ".join([line, *(one.text for one in found)]), flush=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """The tokens of the same requests, run in several ways by one engine."""

    batch: Tokens  # greedy, all at once
    alone: Tokens  # the first `NUM_ALONE`, one after the other
    arriving: Tokens  # a few at a time
    sampled: Tokens  # one entry per completion

    def equal(self, wanted: Answers) -> dict[str, tuple[int, int]]:
        """Way of running -> (how many have the tokens of ``wanted``, of how many)."""
        return {
            how: (sum(a == b for a, b in zip(mine, theirs, strict=True)), len(mine))
            for how, (mine, theirs) in self._pairs(wanted).items()
        }

    def differences(
        self, wanted: Answers, prompts: Tokens, lengths: list[int], folder: Path, device: str
    ) -> list[Difference]:
        """The differences from ``wanted``, each with its reason."""
        asked = list(zip(prompts, lengths, strict=True))
        plain = [Request(prompt=prompt, params=greedy(length)) for prompt, length in asked]
        sampled = [
            Request(prompt=prompt, params=params, index=index)
            for prompt, params in zip(prompts, sampled_params(lengths), strict=True)
            for index in range(params.n)
        ]
        return [
            difference
            for how, (mine, theirs) in self._pairs(wanted).items()
            for difference in differences(
                how, mine, theirs, sampled if how == "sampled" else plain[: len(mine)],
                folder, device,
            )
        ]  # fmt: skip

    def _pairs(self, wanted: Answers) -> dict[str, tuple[Tokens, Tokens]]:
        return {
            "batch": (self.batch, wanted.batch),
            "alone": (self.alone, wanted.batch[:NUM_ALONE]),
            "arriving": (self.arriving, wanted.batch),
            "sampled": (self.sampled, wanted.sampled),
        }


def answer(llm: LLM, prompts: Tokens, lengths: list[int]) -> Answers:
    pairs = list(zip(prompts, lengths, strict=True))
    return Answers(
        batch=run(llm, prompts, lengths)[1],
        alone=[run(llm, [prompt], [length])[1][0] for prompt, length in pairs[:NUM_ALONE]],
        arriving=run_arriving(llm, prompts, lengths),
        sampled=sample(llm, prompts, lengths),
    )


@torch.inference_mode()
def num_as_transformers(folder: Path, prompts: Tokens, answers: Tokens, device: str) -> int:
    """How many requests have only tokens that are the best in one forward pass of transformers over
    the whole text, or within `TIE` of it."""
    from .tiny_models import load_reference

    model = load_reference(folder, device)
    num_right = 0
    for prompt, tokens in zip(prompts, answers, strict=True):
        ids = torch.tensor([[*prompt, *tokens]], device=device)
        logits = model(ids).logits[0, len(prompt) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(tokens, device=device).unsqueeze(1)).squeeze(1)
        num_right += bool((logits.amax(dim=1) - chosen <= TIE).all())
    return num_right


def run_arriving(llm: LLM, prompts: Tokens, lengths: list[int]) -> Tokens:
    """Add requests a few at a time while others run, so that steps mix prefill and decode."""
    llm.reset_prefix_cache()
    engine, rng = llm.llm_engine, random.Random(2)
    to_come = list(enumerate(zip(prompts, lengths, strict=True)))[::-1]
    answers: dict[str, list[int]] = {}
    while to_come or engine.has_unfinished_requests():
        for _ in range(min(len(to_come), rng.choice((0, 0, 1, 2, 5)))):
            number, (prompt, length) = to_come.pop()
            engine.add_request(str(number), {"prompt_token_ids": prompt}, greedy(length))
        for output in engine.step():
            answers[output.request_id] = list(output.outputs[0].token_ids)
    return [answers[str(number)] for number in range(len(prompts))]


def sample(llm: LLM, prompts: Tokens, lengths: list[int]) -> Tokens:
    """Tokens of completions that sample in different ways, all in one batch."""
    params = sampled_params(lengths)
    outputs = llm.generate(prompt_token_ids=prompts, sampling_params=params, use_tqdm=False)
    return [list(one.token_ids) for output in outputs for one in output.outputs]


def sampled_params(lengths: list[int]) -> list[SamplingParams]:
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.8},
        {"temperature": 1.0, "top_k": 20, "top_p": 0.9},
        {"temperature": 0.0, "repetition_penalty": 1.3},
        {"temperature": 1.2, "min_p": 0.05, "n": 2},
        {"temperature": 0.0, "logprobs": 3},
        {"temperature": 1.0, "logit_bias": {5: 4.0, 7: -100.0}},
    ]
    return [
        greedy(length, **{"seed": i, **kinds[i % len(kinds)]}) for i, length in enumerate(lengths)
    ]


# -- bf16: how often a token differs, and why ------------------------------------------------------


def check_bf16(folder: Path, engine: dict[str, Any], records: Records) -> None:
    """Compare a bf16 model with graphs and in batches with the reference: eager, one at a time."""
    from .tiny_models import VOCAB_SIZE, save_tiny_model

    save_tiny_model("grouped-heads", folder, dtype="bfloat16")
    prompts, lengths = random_requests(VOCAB_SIZE)
    tiny = {"load_format": "auto", "dtype": "bfloat16", "max_model_len": MAX_MODEL_LEN, **engine}
    with open_llm(folder, **{**tiny, "enforce_eager": True, "steps_in_flight": 1}) as llm:
        alone = []
        for prompt, length in zip(prompts, lengths, strict=True):
            params = greedy(length, logprobs=2)
            alone += llm.generate(prompt_token_ids=[prompt], sampling_params=params, use_tqdm=False)
        others = {"batch of 64, eager": run(llm, prompts, lengths)[1]}
    with open_llm(folder, **{**tiny, "steps_in_flight": 2}) as llm:
        others["batch of 64, graphs"] = run(llm, prompts, lengths)[1]
        others["alone, graphs"] = [
            run(llm, [prompt], [length])[1][0]
            for prompt, length in zip(prompts, lengths, strict=True)
        ]
    pairs = {
        "alone and batch, eager": others["batch of 64, eager"],
        "graph and eager, alone": others["alone, graphs"],
        "graph in a batch and eager alone": others["batch of 64, graphs"],
    }
    for what, tokens in pairs.items():
        found = compare_rounding([output.outputs[0] for output in alone], tokens)
        passed = found.is_rounding
        records.add("rounding", what=f"bf16: {what}", passed=passed, **found.as_dict())
        print(f"check {'ok  ' if passed else 'FAIL'} bf16, {what}: {found.in_words()}", flush=True)


# -- kernels ---------------------------------------------------------------------------------------


def check_kernels(records: Records, timeout_s: float = 240.0) -> None:
    """Run the kernel tests on this device; each compares a kernel with its reference in torch."""
    # Without the project's configuration, which needs plugins that a GPU machine may lack.
    words = ["-m", "pytest", "-q", "-c", os.devnull, f"--rootdir={ROOT}", "-p", "no:cacheprovider"]
    words += ["--import-mode=importlib", "-o", f"pythonpath={ROOT}"]
    # Kernels that are only compiled, for another GPU, say nothing about this one.
    words += [KERNEL_TESTS, "--ignore-glob=*_compiles.py"]
    if importlib.util.find_spec("xdist") is not None:  # most of the time is compiling
        words += ["-n", str(min(8, os.cpu_count() or 1))]
    ended = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=timeout_s,
        check=False,
    )  # fmt: skip
    lines = (ended.stdout.strip() or ended.stderr.strip()).splitlines()
    counts = {
        word: int(number)
        for number, word in re.findall(r"(\d+) (passed|failed|error|skipped)", (lines or [""])[-1])
    }
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    passed = ended.returncode == 0 and counts.get("passed", 0) > 0
    records.add(
        "check", what="kernels against their twins", passed=passed, counts=counts,
        failures=failures[:20],
    )  # fmt: skip
    print(
        f"check {'ok  ' if passed else 'FAIL'} kernels against their twins: {counts or lines[-3:]}"
    )
    print("\n".join(f"    {line[:200]}" for line in failures[:20]), flush=True)
