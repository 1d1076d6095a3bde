"""GLM-4 9B as transformers has it: half of each head is rotated, in neighbouring pairs."""

from __future__ import annotations

from quire.layers.spec import AttentionSpec
from quire.models.common import attention_from, decoder_from, gated_mlp_from, rms_norm_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import fused_gate_up, llama_weights_with

_EPS = 0.00000015625


def glm(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf, eps=_EPS)
    layer = LayerSpec(
        block="pre_norm",
        attention=glm_attention(hf),
        mlp=gated_mlp_from(hf),
        norms=(norm, norm),
    )
    return _plan(hf, layer, {})


def glm4(hf: HFConfig) -> ModelPlan:
    """GLM-4-0414 norms both ends of each branch."""
    norm = rms_norm_from(hf, eps=_EPS)
    layer = LayerSpec(
        block="sandwich",
        attention=glm_attention(hf),
        mlp=gated_mlp_from(hf),
        norms=(norm,) * 4,
    )
    names = {
        "norm2": "post_self_attn_layernorm",
        "norm3": "post_attention_layernorm",
        "norm4": "post_mlp_layernorm",
    }
    return _plan(hf, layer, names)


def glm_attention(hf: HFConfig) -> AttentionSpec:
    rope = hf.rope(partial_keys=("partial_rotary_factor",), partial=0.5)
    bias = hf.bool("attention_bias", True)
    attention = attention_from(
        hf, qkv_bias=bias, rope=rope, style="interleaved", head_dim=128, num_kv_heads=2
    )
    return attention


def _plan(hf: HFConfig, layer: LayerSpec, names: dict[str, str]) -> ModelPlan:
    spec = decoder_from(hf, [layer] * hf.int("num_hidden_layers"), final_norm=layer.norms[0])
    hf.check_unread()
    fused = fused_gate_up("model.layers.*.mlp.gate_up_proj", hf.int("intermediate_size"))
    return ModelPlan(spec=spec, weights=llama_weights_with(names, fused))
