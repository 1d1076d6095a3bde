"""Falcon, and RefinedWeb as it was called first, in three builds: one KV head and one norm for both
branches (7B); KV groups and a norm for each branch (40B); ALiBi and the MLP after attention (RW).
"""

from __future__ import annotations

from dataclasses import replace

from quire.layers.spec import AttentionSpec
from quire.models.alibi import alibi
from quire.models.common import (
    activation_from,
    attention_with,
    head_from,
    layer_norm_from,
    plain_mlp_from,
    plan_from,
    rope_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import MEGATRON_PARTS, fused_qkv, layer_entries, weight_map

_SPELLINGS = {
    "hidden_act": "activation",
    "hidden_size": "n_embed",
    "intermediate_size": "ffn_hidden_size",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
_PARTS = {**MEGATRON_PARTS, "attention.o": "self_attention.dense"}


def falcon(hf: HFConfig) -> ModelPlan:
    hf = hf.with_spellings(**_SPELLINGS)
    # The first 40B says it by its model type alone.
    is_new = hf.bool("new_decoder_architecture", hf.str("model_type", "") == "RefinedWeb")
    is_parallel = hf.bool("parallel_attn", True) or is_new
    norm = layer_norm_from(hf)
    norm_names = _norm_names(hf, is_new, is_parallel)
    attention = _attention(hf, is_new)
    mlp = plain_mlp_from(
        hf,
        activation=activation_from(hf, "gelu"),
        bias=attention.out_bias,
        inner_size=hf.int("ff_factor", 4) * norm.size,
    )
    layer = LayerSpec(
        block="parallel" if is_parallel else "pre_norm",
        attention=attention,
        mlp=mlp,
        norms=(norm,) * len(norm_names),
    )
    names = {f"norm{number}": name for number, name in enumerate(norm_names, start=1)}
    weights = weight_map(
        layer_entries("h.*", _PARTS | names),
        fused_qkv("h.*.self_attention.query_key_value", attention, "per_kv_group"),
        embedding="word_embeddings",
    )
    return plan_from(hf, layer, final_norm=norm, head=head_from(hf, tied=True), weights=weights)


def _norm_names(hf: HFConfig, is_new: bool, is_parallel: bool) -> tuple[str, ...]:
    if hf.int("num_ln_in_parallel_attn", 2 if is_new else 1) == 2:
        return ("ln_attn", "ln_mlp")
    return ("input_layernorm",) if is_parallel else ("input_layernorm", "post_attention_layernorm")


def _attention(hf: HFConfig, is_new: bool) -> AttentionSpec:
    num_kv_heads = hf.optional_int(("num_kv_heads", "n_head_kv"))
    one_kv_head = hf.bool("multi_query", True)
    if not is_new:
        num_kv_heads = 1 if one_kv_head else None
    attention = attention_with(hf, None, num_kv_heads=num_kv_heads, bias=hf.bool("bias", False))
    rope = rope_from(hf, hf.rope(), attention.head_dim)
    if not hf.bool("alibi", False):
        return replace(attention, positions=rope)
    # added to the scores before they are scaled
    return replace(attention, positions=alibi(attention.num_heads, scale=attention.scale))
