"""The unit that compares requests that ask for more with plain greedy ones, and tells how much of
the GPU's memory is in use.

Dummy weights give logits that hardly differ: the hard case for top-k and top-p.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from quire import LLM, SamplingParams
from quire.bench.standard_workloads import Workload, standard_workload

from .engines import greedy, open_llm, run_requests
from .models import CONFIGS, max_model_len, write_model
from .records import Records
from .units import DoItem, Unit

WORKLOAD = "decode256"
_RANDOM: dict[str, Any] = {"temperature": 1.0}
FEATURES: dict[str, dict[str, Any]] = {
    "temperature": _RANDOM,
    "top-k": {**_RANDOM, "top_k": 20},
    "top-p": {**_RANDOM, "top_p": 0.9},
    "top-k and top-p": {**_RANDOM, "top_k": 20, "top_p": 0.9},
    "min-p": {**_RANDOM, "min_p": 0.05},
    "seed": {**_RANDOM, "seed": 7},
    "penalties": {"presence_penalty": 0.5, "frequency_penalty": 0.5, "repetition_penalty": 1.1},
    "logit_bias": {"logit_bias": {5: 2.0, 9: -100.0}},
    "min_tokens": {"min_tokens": 8, "stop_token_ids": [7, 8]},
    "allowed_token_ids": {"allowed_token_ids": list(range(100, 200))},
    "logprobs 0": {"logprobs": 0},
    "logprobs 5": {"logprobs": 5},
    "logprobs 20": {"logprobs": 20},
    "prompt_logprobs 1": {"prompt_logprobs": 1},
}


@contextmanager
def features_unit(unit: Unit, records: Records) -> Iterator[DoItem]:
    """Items are keys of `FEATURES`."""
    model: str = unit.options["model"]
    workload = standard_workload(
        WORKLOAD, scale=unit.options["scale"], vocab_size=CONFIGS[model]["vocab_size"]
    )
    options = {"max_model_len": max_model_len(model), **unit.options["engine"]}
    with (
        tempfile.TemporaryDirectory() as folder,
        open_llm(write_model(Path(folder), model), **options) as llm,
    ):
        seconds = partial(_seconds, llm, workload, unit.options["repetitions"])
        _note_memory(llm, model, "at the start", records)
        seconds({}, 0)
        plain = seconds({}, 0)

        def do(item: str) -> None:
            one, every = (
                plain / seconds(FEATURES[item], count) for count in (1, len(workload.prompts))
            )
            records.add(
                "feature", model=model, what=item, num_rows=len(workload.prompts),
                one=round(one, 3), all=round(every, 3), plain_s=round(plain, 4),
            )  # fmt: skip
            print(
                f"{model}, {item}: {one:.1%} of the throughput with one such request, {every:.1%} "
                "with all",
                flush=True,
            )

        yield do
        _note_memory(llm, model, "at the end", records)


def _seconds(
    llm: LLM, workload: Workload, repetitions: int, changes: dict[str, Any], count: int
) -> float:
    """The median time of the workload, of which ``count`` requests ask for ``changes``."""
    params: list[SamplingParams] = [
        greedy(length, **(changes if number < count else {}))
        for number, length in enumerate(workload.output_lens)
    ]
    times = [run_requests(llm, workload.prompts, params)[0] for _ in range(repetitions)]
    return statistics.median(times)


def _note_memory(llm: LLM, model: str, when: str, records: Records) -> None:
    if not torch.cuda.is_available():
        return
    free, total = torch.cuda.mem_get_info()
    share = llm.llm_engine.config.cache.gpu_memory_utilization
    records.add("memory", model=model, when=when, asked=share, used=round(1 - free / total, 4))
    print(f"{model}, {when}: {1 - free / total:.2%} of the GPU's memory in use, asked {share:.0%}")
