"""An fp8 KV cache, against transformers with a cache that rounds keys and values in the same way.

A key within rounding of a boundary between two fp8 values may go to either side, which changes
log-probabilities far more than float32 does: so medians are compared, and with those of a cache
that rounds nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from quire import LLM, SamplingParams
from tests.fakes.engines import engine_args
from tests.models.configs import PARITY_ROWS, save_random_model
from tests.models.rows.fallback import ENGINE_ROWS as FALLBACK_ROWS

DTYPES = {"fp8": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
ROWS = {row.id: row for row in (*PARITY_ROWS, *FALLBACK_ROWS)}
PROMPT_LENS = (1, 9, 37, 60)
NUM_NEW = 12


class RoundedCache(DynamicCache):
    """Gives back keys and values as an fp8 cache would; None: as they are."""

    def __init__(self, dtype: torch.dtype | None, config: Any) -> None:
        super().__init__(config=config)
        self._dtype = dtype

    def update(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = super().update(*args, **kwargs)
        if self._dtype is None:
            return keys, values
        largest = torch.finfo(self._dtype).max
        keys, values = (
            one.clamp(-largest, largest).to(self._dtype).to(one.dtype) for one in (keys, values)
        )
        return keys, values


def logprobs(model: PreTrainedModel, tokens: list[int], dtype: torch.dtype | None) -> Tensor:
    cache = RoundedCache(dtype, model.config)
    with torch.inference_mode():
        logits = model(torch.tensor([tokens]), past_key_values=cache, use_cache=True).logits[0]
    return logits.log_softmax(dim=-1)


def differences(found: Any, model: PreTrainedModel, dtype: torch.dtype | None) -> Tensor:
    """Of all new tokens' log-probabilities."""
    parts = []
    for output in found:
        prompt, (answer,) = output.prompt_token_ids, output.outputs
        tokens = list(answer.token_ids)
        lines = logprobs(model, [*prompt, *tokens], dtype)[len(prompt) - 1 : -1]
        own = [one[token].logprob for one, token in zip(answer.logprobs, tokens, strict=True)]
        parts.append(lines[range(len(tokens)), tokens] - torch.tensor(own))
    return torch.cat(parts).abs()


def answers(folder: Path, kv_cache_dtype: str, **limits: Any) -> Any:
    args = engine_args(folder, kv_cache_dtype=kv_cache_dtype, max_model_len=96, **limits)
    generator = torch.Generator().manual_seed(3)
    prompts = [torch.randint(5, 90, (n,), generator=generator).tolist() for n in PROMPT_LENS]
    params = SamplingParams(
        temperature=0, max_tokens=NUM_NEW, ignore_eos=True, logprobs=0, detokenize=False
    )
    with LLM(**vars(args)) as llm:
        return llm.generate(prompt_token_ids=prompts, sampling_params=params, use_tqdm=False)


@pytest.mark.parametrize("kv_cache_dtype", DTYPES)
@pytest.mark.parametrize(
    ("row", "limits"),
    [
        ("LlamaForCausalLM-plain", {}),
        ("LlamaForCausalLM-plain", {"max_num_batched_tokens": 16, "max_num_seqs": 3}),
        ("Qwen3ForCausalLM-plain", {"num_gpu_blocks_override": 16}),  # preempts
        ("MistralForCausalLM-window", {}),
        ("GPT2LMHeadModel-plain", {}),  # without rotary positions
        ("GptOssForCausalLM-plain", {}),  # with sinks
        ("Olmo3ForCausalLM-windows", {}),  # by transformers' own code
    ],
)
def test_answers_are_those_of_a_cache_that_rounds_alike(
    tmp_path: Path, kv_cache_dtype: str, row: str, limits: dict[str, int]
) -> None:
    model = save_random_model(ROWS[row], tmp_path)
    found = answers(tmp_path, kv_cache_dtype, **limits)
    rounded = differences(found, model, DTYPES[kv_cache_dtype]).median()
    plain = differences(found, model, None).median()
    assert rounded < 1e-5 < 1e-3 < plain
