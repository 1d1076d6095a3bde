"""Add an architecture of your own: describe it, register it, generate with it.

A plan function only describes what a config.json means; Quire does the computation.
"ScholarForCausalLM" has Llama's attention in parallel with a plain MLP of squared ReLU, both behind
one layer norm, and tensor names of its own. Its weights are random, so nothing is downloaded.

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

# Quire's tensor name -> the checkpoint's; * is the layer's number. The plan implies Quire's names.
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
    """The plan that a config.json of this family describes. Reads every key it may have."""
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
    # A key that was not read is refused, since it may change how the model computes.
    return plan_from(hf, layer, final_norm=norm, weights=weights)


def save_random_model(folder: Path) -> None:
    """Write a model folder as on a hub, but without a tokenizer."""
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
    # A package does this in a function that it names as an entry point of the group
    # "quire.plugins": then every process of Quire knows the architecture.
    ModelRegistry.register_model("ScholarForCausalLM", scholar)
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(Path(folder))
        with LLM(folder, skip_tokenizer_init=True, dtype="float32") as llm:
            params = SamplingParams(temperature=0.8, seed=1, max_tokens=8)
            for output in llm.generate([{"prompt_token_ids": [3, 14, 15]}], params):
                print(f"{output.prompt_token_ids} -> {list(output.outputs[0].token_ids)}")


if __name__ == "__main__":
    main()
