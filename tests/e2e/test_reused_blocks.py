"""What an earlier owner left in a KV block is nothing to its next one, whatever it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import quire.worker.worker as worker
from quire import LLM, SamplingParams
from quire.worker.kv_memory import KVMemory

PROMPTS = ["The cat sat on the mat and looked at the", "Once", "a b c " * 40]
GREEDY = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)


def answers(llm: LLM) -> list[list[int]]:
    outputs = llm.generate(PROMPTS, GREEDY, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("left", [torch.nan, torch.inf])
def test_answers_do_not_depend_on_what_blocks_held_before(
    dtype: str, left: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    memories: list[KVMemory] = []
    build = worker.build_kv_memory

    def kept(*args: Any) -> KVMemory:
        memories.append(build(*args))
        return memories[-1]

    monkeypatch.setattr(worker, "build_kv_memory", kept)
    llm = LLM(max_num_seqs=4, max_model_len=512, dtype=dtype, enable_prefix_caching=False)
    try:
        expected = answers(llm)
        for layer in memories[-1].of_layer:
            layer[:, 1:] = left
        assert answers(llm) == expected
    finally:
        llm.close()
