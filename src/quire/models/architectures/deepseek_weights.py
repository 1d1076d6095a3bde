"""Where the weights of DeepSeek-V2 and V3 are, plain or in 8-bit floats with scales by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from quire.errors import UnsupportedModelError
from quire.models.hf_config import HFConfig
from quire.models.mixtures import LLAMA_EXPERT, expert_entries, shared_entries
from quire.models.weight_names import LLAMA_WEIGHTS
from quire.weights.packed import BlockScaled
from quire.weights.weight_map import Operation, Source, WeightMap

_ATTENTION = {
    "q": "q_proj",
    "q_down": "q_a_proj",
    "q_up": "q_b_proj",
    "kv_down": "kv_a_proj_with_mqa",
    "kv_up": "kv_b_proj",
    "o": "o_proj",
}
_NORMS = {"q_norm": "q_a_layernorm", "kv_norm": "kv_a_layernorm"}


def deepseek_weights(hf: HFConfig, num_experts: int) -> WeightMap:
    stored = _stored(hf)
    layer, num_layers = "model.layers.*", hf.int("num_hidden_layers")
    attention = {
        f"layers.*.attention.{ours}.weight": stored(f"{layer}.self_attn.{theirs}.weight")
        for ours, theirs in _ATTENTION.items()
    }
    plain = {
        f"layers.*.attention.{ours}.{kind}": Source(f"{layer}.self_attn.{theirs}.{kind}")
        for names, kind in ((_ATTENTION, "bias"), (_NORMS, "weight"))
        for ours, theirs in names.items()
    }
    dense = {
        f"layers.*.mlp.{ours}.weight": stored(f"{layer}.mlp.{theirs}.weight")
        for ours, theirs in LLAMA_EXPERT.items()
    }
    correction = Source(f"{layer}.mlp.gate.e_score_correction_bias")
    # What predicts more than one token lies behind the last layer, as more layers.
    more = range(num_layers, num_layers + hf.int("num_nextn_predict_layers", 0))
    return replace(
        LLAMA_WEIGHTS,
        entries={
            **LLAMA_WEIGHTS.entries,
            **attention,
            **plain,
            **dense,
            **expert_entries(f"{layer}.mlp", num_experts, stored=stored),
            "layers.*.moe.router.correction": correction,
            **shared_entries(f"{layer}.mlp.shared_experts", stored),
        },
        ignored=(*LLAMA_WEIGHTS.ignored, *(f"model.layers.{number}.*" for number in more)),
    )


def _stored(hf: HFConfig) -> Callable[[str], Operation]:
    """How a matrix is stored, by its name."""
    quantization = hf.nested("quantization_config")
    stored = quantization.choice("quant_method", {"none": Source, "fp8": None}, "none")
    if stored is not None:
        return stored
    quantization.choice("fmt", {"e4m3": None}, "e4m3")
    quantization.choice("activation_scheme", {"dynamic": None}, "dynamic")
    block = quantization.list("weight_block_size")
    if len(block) != 2 or block[0] != block[1]:
        raise UnsupportedModelError(
            f"config key 'quantization_config.weight_block_size' = {block} is not supported for "
            f"{hf.architecture}; supported: squares, such as [128, 128]"
        )
    return lambda name: BlockScaled(name, f"{name}_scale_inv", block[0])
