"""Phi-3 and Phi-4: Llama with q, k and v in one tensor, gate and up in another; longrope."""

from __future__ import annotations

from quire.models.common import (
    attention_from,
    decoder_from,
    gated_mlp_from,
    rms_norm_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import fused_gate_up, fused_qkv, llama_weights_with

_INERT = ("embd_pdrop", "resid_pdrop", "full_attn_mod", "num_logits_to_keep", "interpolate_factor")


def phi3(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf, eps=1e-5)
    hf.optional_int("original_max_position_embeddings")  # of longrope; stands in all files
    rope = hf.rope(partial_keys=("partial_rotary_factor",))
    attention = attention_from(hf, rope=rope, window=hf.optional_int("sliding_window"))
    mlp = gated_mlp_from(hf)
    layer = LayerSpec(block="pre_norm", attention=attention, mlp=mlp, norms=(norm, norm))
    spec = decoder_from(hf, [layer] * hf.int("num_hidden_layers"), final_norm=norm)
    hf.check_unread(_INERT)
    fused = fused_qkv("model.layers.*.self_attn.qkv_proj", attention)
    fused |= fused_gate_up("model.layers.*.mlp.gate_up_proj", mlp.inner_size)
    return ModelPlan(spec=spec, weights=llama_weights_with({}, fused))
