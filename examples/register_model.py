"""Serve an architecture of one's own: describe it, register it, generate with it.

Quire computes; a plan function only says what a config.json means. "ScholarForCausalLM" is Llama's
attention beside a plain MLP with squared ReLU, both behind one layer norm, with tensor names of
its own. Here its weights are random, so that the example needs no download.

Usage: python examples/register_model.py
"""

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from quire import LLM, ModelRegistry, SamplingParams
from quire.layers.spec import LayerNormSpec, PlainMLPSpec
from quire.models.common import attention_from, plan_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.weights.weight_map import Source, WeightMap

CONFIG = {
    "architectures": ["ScholarForCausalLM"],
    "vocab_size": 256,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "scholar_mlp_size": 128,
    "max_position_embeddings": 512,
}

# Ours -> theirs; * is the layer's number. Which of ours there are follows from the plan.
NAMES = {
    "embedding.weight": "tokens.weight",
    "layers.*.norm1.weight": "layer.*.norm.weight",
    "layers.*.norm1.bias": "layer.*.norm.bias",
    **{f"layers.*.attention.{part}.weight": f"layer.*.look.{part}.weight" for part in "qkvo"},
    "layers.*.mlp.up.weight": "layer.*.think.in.weight",
    "layers.*.mlp.down.weight": "layer.*.think.out.weight",
    "final_norm.weight": "last_norm.weight",
    "final_norm.bias": "last_norm.bias",
    "head.weight": "answer.weight",
}


def scholar(hf: HFConfig) -> ModelPlan:
    """What a config.json of this family means; every key it may have is read by its type."""
    norm = LayerNormSpec(size=hf.int("hidden_size"), eps=hf.float("scholar_norm_eps", 1e-5))
    layer = LayerSpec(
        block="parallel",
        attention=attention_from(hf),
        mlp=PlainMLPSpec(
            hidden_size=hf.int("hidden_size"),
            inner_size=hf.int("scholar_mlp_size"),
            activation="relu2",
            bias=False,
        ),
        norms=(norm,),
    )
    weights = WeightMap(entries={ours: Source(theirs) for ours, theirs in NAMES.items()})
    # A key that nobody has read would change behaviour that is not here: it is refused.
    return plan_from(hf, layer, final_norm=norm, weights=weights)


def save_random_model(folder: Path) -> None:
    """A model folder as a hub would hold it, without a tokenizer."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    plan = scholar(HFConfig(CONFIG, "ScholarForCausalLM"))
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in plan.parameter_shapes().items():
        operation = plan.weights.operation(name)
        assert operation is not None, name
        (hub_name,) = operation.names()
        tensors[hub_name] = torch.randn(shape, generator=generator) * shape[-1] ** -0.5
    save_file(tensors, folder / "model.safetensors")


def main() -> None:
    # In a package of your own, do this in a function that its entry point in the group
    # "quire.plugins" names: then every process of Quire knows the architecture.
    ModelRegistry.register_model("ScholarForCausalLM", scholar)
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(Path(folder))
        with LLM(folder, skip_tokenizer_init=True, dtype="float32") as llm:
            params = SamplingParams(temperature=0.8, seed=1, max_tokens=8)
            for output in llm.generate([{"prompt_token_ids": [3, 14, 15]}], params):
                print(f"{output.prompt_token_ids} -> {list(output.outputs[0].token_ids)}")


if __name__ == "__main__":
    main()
