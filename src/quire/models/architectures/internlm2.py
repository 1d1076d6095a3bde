"""InternLM2: Llama under other names, with q, k and v fused KV head by KV head."""

from __future__ import annotations

from quire.models.common import attention_from, gated_mlp_from, plan_from, rms_norm_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import fused_qkv, layer_entries, weight_map

_PARTS = {
    "attention.o": "attention.wo",
    "mlp.gate": "feed_forward.w1",
    "mlp.up": "feed_forward.w3",
    "mlp.down": "feed_forward.w2",
    "norm1": "attention_norm",
    "norm2": "ffn_norm",
}


def internlm2(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf)
    attention = attention_from(hf, bias=hf.bool("bias", False))
    layer = LayerSpec(
        block="pre_norm", attention=attention, mlp=gated_mlp_from(hf), norms=(norm, norm)
    )
    weights = weight_map(
        layer_entries("layers.*", _PARTS),
        fused_qkv("layers.*.attention.wqkv", attention, "per_kv_group"),
        embedding="tok_embeddings",
        final_norm="norm",
        head="output",
        prefixes=("model.", ""),
    )
    return plan_from(hf, layer, final_norm=norm, weights=weights)
