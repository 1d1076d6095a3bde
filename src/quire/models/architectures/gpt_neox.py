"""GPT-NeoX and Pythia: attention and MLP side by side, each behind a norm of its own, rotation of
the first quarter of a head, q, k and v fused head by head."""

from __future__ import annotations

from quire.models.common import attention_from, decoder_from, layer_norm_from, plain_mlp_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import fused_qkv, layer_entries, model_entries
from quire.weights.weight_map import WeightMap

_PARTS = {
    "attention.o": "attention.dense",
    "mlp.up": "mlp.dense_h_to_4h",
    "mlp.down": "mlp.dense_4h_to_h",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
}


def gpt_neox(hf: HFConfig) -> ModelPlan:
    norm = layer_norm_from(hf)
    bias = hf.bool("attention_bias", True)
    rope = hf.rope(
        theta_keys=("rotary_emb_base", "rope_theta"),
        partial_keys=("rotary_pct", "partial_rotary_factor"),
        partial=0.25,
    )
    hf.fixed("num_key_value_heads", hf.int("num_attention_heads"))
    attention = attention_from(hf, qkv_bias=bias, out_bias=bias, rope=rope)
    is_parallel = hf.bool("use_parallel_residual", True)
    layer = LayerSpec(
        block="parallel" if is_parallel else "pre_norm",
        attention=attention,
        mlp=plain_mlp_from(hf, bias=True, inner_size=24576),
        norms=(norm, norm),
    )
    spec = decoder_from(hf, [layer] * hf.int("num_hidden_layers"), final_norm=norm)
    hf.check_unread(("is_decoder",))
    weights = WeightMap(
        entries={
            **model_entries(embedding="embed_in", final_norm="final_layer_norm", head="embed_out"),
            **layer_entries("layers.*", _PARTS),
            **fused_qkv("layers.*.attention.query_key_value", attention, "per_head"),
        },
        ignored=(
            "*.attention.bias",
            "*.attention.masked_bias",
            "*.rotary_emb.inv_freq",
            "embed_out.weight",
        ),
        prefixes=("gpt_neox.", ""),
    )
    return ModelPlan(spec=spec, weights=weights)
