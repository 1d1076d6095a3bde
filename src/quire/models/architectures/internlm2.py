"""InternLM2: Llama under other names, with q, k and v fused KV head by KV head."""

from __future__ import annotations

from quire.models.common import attention_from, decoder_from, gated_mlp_from, rms_norm_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import fused_qkv, layer_entries, model_entries
from quire.weights.weight_map import WeightMap

_PARTS = {
    "attention.o": "attention.wo",
    "mlp.gate": "feed_forward.w1",
    "mlp.up": "feed_forward.w3",
    "mlp.down": "feed_forward.w2",
    "norm1": "attention_norm",
    "norm2": "ffn_norm",
}


def internlm2(hf: HFConfig) -> ModelPlan:
    bias = hf.bool("bias", False)
    attention = attention_from(hf, qkv_bias=bias, out_bias=bias)
    norm = rms_norm_from(hf)
    layer = LayerSpec(
        block="pre_norm", attention=attention, mlp=gated_mlp_from(hf), norms=(norm, norm)
    )
    spec = decoder_from(hf, [layer] * hf.int("num_hidden_layers"), final_norm=norm)
    hf.check_unread()
    names = model_entries(embedding="model.tok_embeddings", final_norm="model.norm", head="output")
    wqkv = fused_qkv("model.layers.*.attention.wqkv", attention, "per_kv_group")
    weights = WeightMap(
        entries={**names, **layer_entries("model.layers.*", _PARTS), **wqkv},
        ignored=("*.rotary_emb.inv_freq", "output.weight"),
    )
    return ModelPlan(spec=spec, weights=weights)
