"""StableLM, in both spellings of its config: Llama with layer norms and partial rotation; the 12B
puts attention and MLP side by side and norms every head of q and k."""

from __future__ import annotations

from dataclasses import replace

from quire.layers.spec import AttentionSpec, HeadsLayerNormSpec
from quire.models.common import attention_from, decoder_from, gated_mlp_from, layer_norm_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import llama_weights_with
from quire.weights.weight_map import StackedExperts, WeightMap


def stablelm(hf: HFConfig) -> ModelPlan:
    norm = layer_norm_from(hf, keys=("layer_norm_eps", "norm_eps"))
    hf.fixed("num_heads", hf.int("num_attention_heads"))
    hf.fixed("rotary_scaling_factor", 1.0)
    rope = hf.rope(partial_keys=("partial_rotary_factor", "rope_pct"), partial=0.25)
    attention = attention_from(hf, qkv_bias=hf.bool("use_qkv_bias", False), rope=rope)
    if hf.bool("qk_layernorm", False):
        q_norm, k_norm = (
            HeadsLayerNormSpec(num_heads=heads, size=attention.head_dim, eps=norm.eps)
            for heads in (attention.num_heads, attention.num_kv_heads)
        )
        attention = replace(attention, qk_norms=(q_norm, k_norm))
    is_parallel = hf.bool("use_parallel_residual", False)
    layer = LayerSpec(
        block="parallel" if is_parallel else "pre_norm",
        attention=attention,
        mlp=gated_mlp_from(hf),
        norms=(norm,) if is_parallel else (norm, norm),
    )
    spec = decoder_from(hf, [layer] * hf.int("num_hidden_layers"), final_norm=norm)
    hf.check_unread()
    return ModelPlan(spec=spec, weights=_weights(attention))


def _weights(attention: AttentionSpec) -> WeightMap:
    """Llama's names; a norm of heads is stored head by head."""
    heads = {"q": attention.num_heads, "k": attention.num_kv_heads}
    return llama_weights_with(
        {},
        {
            f"layers.*.attention.{part}_norm.weight": StackedExperts(
                f"model.layers.*.self_attn.{part}_layernorm.norms.{{expert}}.weight", count
            )
            for part, count in heads.items()
        },
    )
