"""Where the weights of DeepSeek-V2 and V3 are, plain or in 8-bit floats with scales by block."""

from __future__ import annotations

from dataclasses import replace

from quire.models.hf_config import HFConfig
from quire.models.mixtures import LLAMA_EXPERT, expert_entries, shared_entries
from quire.models.stored import plain_or_block_scaled
from quire.models.weight_names import LLAMA_WEIGHTS
from quire.weights.weight_map import Source, WeightMap

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
    stored = plain_or_block_scaled(hf)
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
    # Multi-token prediction modules are stored as extra layers after the last one.
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
