"""OLMo as its makers published it first: norms that may have no weights, q, k and v in one matrix,
and an MLP whose gate is the second half. transformers' own layout is another file's."""

from __future__ import annotations

from dataclasses import replace

from quire.layers.spec import AttentionSpec, GatedMLPSpec, LayerNormSpec, LearnedPositionsSpec
from quire.models.common import (
    MOSAIC_SPELLINGS,
    attention_with,
    embedding_from,
    head_from,
    norming_all_heads,
    plan_from,
    rope_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import fused_gate_up, fused_qkv, layer_entries, weight_map

_INERT = (
    "alibi_bias_max",  # ALiBi itself is refused
    "block_group_size",
    "flash_attention",
    "precision",
    "rope_full_precision",
    "tie_word_embeddings",  # weight_tying counts
    "vocab_size",  # embedding_size, if it is there: some of its rows are not in use
)
_PARTS = {
    "attention.o": "attn_out",
    "attention.q_norm": "q_norm",
    "attention.k_norm": "k_norm",
    "mlp.down": "ff_out",
    "norm1": "attn_norm",
    "norm2": "ff_norm",
}
_NORMS = dict.fromkeys(("default", "low_precision"))  # one in float32, one in the dtype


def olmo_original(hf: HFConfig) -> ModelPlan:
    hf = hf.with_spellings(**MOSAIC_SPELLINGS)
    hf.choice("block_type", {"sequential": None}, "sequential")
    hf.choice("activation_type", {"swiglu": None}, "swiglu")
    hidden_size, vocab_size = hf.int("hidden_size"), hf.optional_int("embedding_size")
    bias = hf.bool("include_bias", True)
    norm = _norm(hf, hf.bool("layer_norm_with_affine", True), bias)
    attention = _attention(hf, bias)
    mlp = GatedMLPSpec(
        hidden_size=hidden_size,
        inner_size=hf.int("mlp_hidden_size", int(hf.float("mlp_ratio", 4) * hidden_size)) // 2,
        activation="silu",
        bias=bias,
    )
    learned = LearnedPositionsSpec(num_positions=hf.int("max_sequence_length", 1024))
    positions = learned if attention.positions is None else None
    scale = hidden_size**-0.5 if hf.bool("scale_logits", False) else 1.0
    head = head_from(hf, vocab_size=vocab_size, scale=scale)
    return plan_from(
        hf,
        LayerSpec(block="pre_norm", attention=attention, mlp=mlp, norms=(norm, norm)),
        final_norm=norm,
        embedding=embedding_from(hf, vocab_size=vocab_size, positions=positions),
        head=replace(head, tied=hf.bool("weight_tying", True)),
        weights=weight_map(
            layer_entries("blocks.*", _PARTS),
            fused_qkv("blocks.*.att_proj", attention),
            fused_gate_up("blocks.*.ff_proj", mlp.inner_size, ("up", "gate")),
            head="ff_out",
            prefixes=("model.transformer.", "transformer.", ""),
        ),
        inert=_INERT,
    )


def _norm(hf: HFConfig, has_weight: bool, linear_bias: bool) -> LayerNormSpec:
    hf.choice("layer_norm_type", _NORMS, "default")
    return LayerNormSpec(
        size=hf.int("hidden_size"),
        eps=hf.fraction("layer_norm_eps", 1e-5),
        weight=has_weight,
        bias=has_weight and hf.bool("bias_for_layer_norm", linear_bias),
    )


def _attention(hf: HFConfig, bias: bool) -> AttentionSpec:
    num_heads = hf.int("num_attention_heads")
    is_shared = hf.bool("multi_query_attention", False)
    attention = attention_with(
        hf, None, num_kv_heads=hf.int("n_kv_heads", 1 if is_shared else num_heads), bias=bias
    )
    rope = rope_from(hf, hf.rope(), attention.head_dim) if hf.bool("rope", False) else None
    attention = replace(attention, positions=rope, clip=hf.optional_float("clip_qkv"))
    head_norm = _norm(hf, hf.bool("attention_layer_norm_with_affine", True), bias)
    if not hf.bool("attention_layer_norm", False):
        return attention
    return norming_all_heads(attention, head_norm)
