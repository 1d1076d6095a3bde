"""Falcon, and RefinedWeb as it was called first, in three builds: one KV head and one norm for both
branches (7B); KV groups and a norm for each branch (40B); ALiBi and the MLP after attention (RW).
"""

from __future__ import annotations

from dataclasses import replace

from quire.layers.spec import AttentionSpec
from quire.models.alibi import alibi
from quire.models.common import (
    decoder_from,
    layer_norm_from,
    plain_mlp_from,
    rope_from,
    unrotated_attention_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import fused_qkv, layer_entries, model_entries
from quire.weights.weight_map import WeightMap

_SPELLINGS = {
    "hidden_act": "activation",
    "hidden_size": "n_embed",
    "intermediate_size": "ffn_hidden_size",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
_PARTS = {
    "attention.o": "self_attention.dense",
    "mlp.up": "mlp.dense_h_to_4h",
    "mlp.down": "mlp.dense_4h_to_h",
}


def falcon(hf: HFConfig) -> ModelPlan:
    hf = hf.with_spellings(**_SPELLINGS)
    # The first 40B says it by its model type alone.
    is_new = hf.bool("new_decoder_architecture", hf.str("model_type", "") == "RefinedWeb")
    is_parallel = hf.bool("parallel_attn", True) or is_new
    norm = layer_norm_from(hf)
    norm_names = _norm_names(hf, is_new, is_parallel)
    attention = _attention(hf, is_new)
    inner_size = hf.int("ff_factor", 4) * norm.size
    layer = LayerSpec(
        block="parallel" if is_parallel else "pre_norm",
        attention=attention,
        mlp=plain_mlp_from(hf, bias=attention.out_bias, inner_size=inner_size),
        norms=(norm,) * len(norm_names),
    )
    layers = [layer] * hf.int("num_hidden_layers")
    spec = decoder_from(hf, layers, final_norm=norm, tied=True)
    hf.check_unread()
    return ModelPlan(spec=spec, weights=_weights(attention, norm_names))


def _norm_names(hf: HFConfig, is_new: bool, is_parallel: bool) -> tuple[str, ...]:
    if hf.int("num_ln_in_parallel_attn", 2 if is_new else 1) == 2:
        return ("ln_attn", "ln_mlp")
    return ("input_layernorm",) if is_parallel else ("input_layernorm", "post_attention_layernorm")


def _attention(hf: HFConfig, is_new: bool) -> AttentionSpec:
    num_kv_heads = hf.optional_int(("num_kv_heads", "n_head_kv"))
    one_kv_head = hf.bool("multi_query", True)
    if not is_new:
        num_kv_heads = 1 if one_kv_head else None
    attention = unrotated_attention_from(hf, num_kv_heads=num_kv_heads, bias=hf.bool("bias", False))
    rope = rope_from(hf, hf.rope(), attention.head_dim)
    if not hf.bool("alibi", False):
        return replace(attention, positions=rope)
    # added to the scores before they are scaled
    return replace(attention, positions=alibi(attention.num_heads, scale=attention.scale))


def _weights(attention: AttentionSpec, norm_names: tuple[str, ...]) -> WeightMap:
    norms = {f"norm{number}": name for number, name in enumerate(norm_names, start=1)}
    return WeightMap(
        entries={
            **model_entries(embedding="word_embeddings", final_norm="ln_f"),
            **layer_entries("h.*", _PARTS | norms),
            **fused_qkv("h.*.self_attention.query_key_value", attention, "per_kv_group"),
        },
        ignored=("lm_head.weight", "*.inv_freq"),
        prefixes=("transformer.", ""),
    )
