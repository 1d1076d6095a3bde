"""StableLM, in both spellings of its config: Llama with layer norms and partial rotation; the 12B
puts attention and MLP side by side and norms every head of q and k."""

from __future__ import annotations

from quire.layers.spec import AttentionSpec
from quire.models.common import (
    attention_from,
    gated_mlp_from,
    layer_norm_from,
    norming_heads_apart,
    plan_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import Entries, llama_weights_with
from quire.weights.weight_map import StackedExperts


def stablelm(hf: HFConfig) -> ModelPlan:
    norm = layer_norm_from(hf, keys=("layer_norm_eps", "norm_eps"))
    hf.fixed("num_heads", hf.int("num_attention_heads"))
    hf.fixed("rotary_scaling_factor", 1.0)
    rope = hf.rope(partial_keys=("partial_rotary_factor", "rope_pct"), partial=0.25)
    attention = attention_from(hf, qkv_bias=hf.bool("use_qkv_bias", False), rope=rope)
    if hf.bool("qk_layernorm", False):
        attention = norming_heads_apart(attention, norm.eps)
    is_parallel = hf.bool("use_parallel_residual", False)
    layer = LayerSpec(
        block="parallel" if is_parallel else "pre_norm",
        attention=attention,
        mlp=gated_mlp_from(hf),
        norms=(norm,) if is_parallel else (norm, norm),
    )
    weights = llama_weights_with({}, _head_norms(attention))
    return plan_from(hf, layer, final_norm=norm, weights=weights)


def _head_norms(attention: AttentionSpec) -> Entries:
    """Entries of the q and k norms, which are stored head by head."""
    heads = {"q": attention.num_heads, "k": attention.num_kv_heads}
    return {
        f"layers.*.attention.{part}_norm.weight": StackedExperts(
            f"model.layers.*.self_attn.{part}_layernorm.norms.{{expert}}.weight", count
        )
        for part, count in heads.items()
    }
