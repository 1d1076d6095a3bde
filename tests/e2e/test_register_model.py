"""The example of a model of one's own works, and what it generates is what its description says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from quire import LLM, ModelRegistry, SamplingParams

_EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "register_model.py"))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the example registers is forgotten after the test."""
    monkeypatch.setattr(ModelRegistry, "_functions", dict(ModelRegistry._functions))
    ModelRegistry.register_model("ScholarForCausalLM", _EXAMPLE["scholar"])


@pytest.mark.usefixtures("registered")
def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    _EXAMPLE["main"]()
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("[3, 14, 15] -> [") and line.count(",") == 2 + 7


@pytest.mark.usefixtures("registered")
def test_it_computes_what_the_example_says(tmp_path: Path) -> None:
    _EXAMPLE["save_random_model"](tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    with LLM(str(tmp_path), skip_tokenizer_init=True, dtype="float32", device="cpu") as llm:
        params = SamplingParams(temperature=0.0, max_tokens=1, logprobs=5)
        (output,) = llm.generate([{"prompt_token_ids": [3, 14, 15]}], params, use_tqdm=False)
    logprobs = _logits(tensors, [3, 14, 15])[-1].log_softmax(0)
    assert output.outputs[0].logprobs is not None
    for token, found in output.outputs[0].logprobs[0].items():
        assert found.logprob == pytest.approx(float(logprobs[token]), abs=2e-4)


def _logits(tensors: dict[str, Tensor], tokens: list[int]) -> Tensor:
    h = tensors["tokens.weight"][tokens]
    for layer in range(2):
        part = {
            name.removeprefix(f"layer.{layer}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"layer.{layer}.")
        }
        x = F.layer_norm(h, (64,), part["norm.weight"], part["norm.bias"])
        q, k, v = ((x @ part[f"look.{one}.weight"].T).view(len(tokens), -1, 16) for one in "qkv")
        q, k = _rotated(q), _rotated(k)
        attended = F.scaled_dot_product_attention(
            *(one.transpose(0, 1)[None] for one in (q, k, v)), is_causal=True, enable_gqa=True
        )
        looked = attended[0].transpose(0, 1).flatten(1) @ part["look.o.weight"].T
        thought = (x @ part["think.in.weight"].T).relu().square() @ part["think.out.weight"].T
        h = h + looked + thought
    h = F.layer_norm(h, (64,), tensors["last_norm.weight"], tensors["last_norm.bias"])
    return h @ tensors["answer.weight"].T


def _rotated(x: Tensor) -> Tensor:
    angles = torch.outer(torch.arange(len(x)), 10000.0 ** (-torch.arange(8) / 8))[:, None]
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
