"""Phi-3 and Phi-4: Llama with q, k and v in one tensor, gate and up in another; longrope."""

from __future__ import annotations

from quire.models.common import attention_from, gated_mlp_from, plan_from, rms_norm_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import fused_gate_up, fused_qkv, llama_weights_with

_INERT = ("full_attn_mod", "num_logits_to_keep", "interpolate_factor")


def phi3(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf, eps=1e-5)
    hf.optional_int("original_max_position_embeddings")  # of longrope; stands in all files
    rope = hf.rope(partial_keys=("partial_rotary_factor",))
    attention = attention_from(hf, rope=rope, window=hf.optional_int("sliding_window"))
    mlp = gated_mlp_from(hf)
    fused = {
        **fused_qkv("model.layers.*.self_attn.qkv_proj", attention),
        **fused_gate_up("model.layers.*.mlp.gate_up_proj", mlp.inner_size),
    }
    layer = LayerSpec(block="pre_norm", attention=attention, mlp=mlp, norms=(norm, norm))
    weights = llama_weights_with({}, fused)
    return plan_from(hf, layer, final_norm=norm, weights=weights, inert=_INERT)
