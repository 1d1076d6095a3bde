"""GLM-4 9B as transformers has it: half of each head is rotated, in neighbouring pairs."""

from __future__ import annotations

from quire.layers.spec import AttentionSpec
from quire.models.common import attention_from, gated_mlp_from, plan_from, rms_norm_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import fused_gate_up, llama_weights_with

_EPS = 0.00000015625
_GLM4_NORMS = {
    "norm2": "post_self_attn_layernorm",
    "norm3": "post_attention_layernorm",
    "norm4": "post_mlp_layernorm",
}


def glm(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf, eps=_EPS)
    layer = LayerSpec(
        block="pre_norm", attention=_attention(hf), mlp=gated_mlp_from(hf), norms=(norm, norm)
    )
    return _plan(hf, layer, {})


def glm4(hf: HFConfig) -> ModelPlan:
    """GLM-4-0414 norms both ends of each branch."""
    norm = rms_norm_from(hf, eps=_EPS)
    layer = LayerSpec(
        block="sandwich", attention=_attention(hf), mlp=gated_mlp_from(hf), norms=(norm,) * 4
    )
    return _plan(hf, layer, _GLM4_NORMS)


def _attention(hf: HFConfig) -> AttentionSpec:
    rope = hf.rope(partial_keys=("partial_rotary_factor",), partial=0.5)
    bias = hf.bool("attention_bias", True)
    return attention_from(
        hf, qkv_bias=bias, rope=rope, style="interleaved", head_dim=128, num_kv_heads=2
    )


def _plan(hf: HFConfig, layer: LayerSpec, names: dict[str, str]) -> ModelPlan:
    fused = fused_gate_up("model.layers.*.mlp.gate_up_proj", hf.int("intermediate_size"))
    weights = llama_weights_with(names, fused)
    return plan_from(hf, layer, final_norm=layer.norms[0], weights=weights)
