"""ChatGLM2 and 3 (and GLM-4 in their layout): Llama with half of each head rotated, pair by pair.

The first ChatGLM is another model, with another architecture name.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from quire.layers.spec import (
    AttentionSpec,
    LayerNormSpec,
    LinearScaling,
    NormSpec,
    RMSNormSpec,
    RopeSpec,
)
from quire.models.common import attention_with, embedding_from, gated_mlp_from, head_from, plan_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import (
    MEGATRON_PARTS,
    fused_gate_up,
    fused_qkv,
    layer_entries,
    weight_map,
)

logger = logging.getLogger(__name__)

_SPELLINGS = {"intermediate_size": "ffn_hidden_size", "num_hidden_layers": "num_layers"}
_INERT = (
    "apply_query_key_layer_scaling",  # scales scores down, then up again before the softmax
    "attention_softmax_in_fp32",
    "bias_dropout_fusion",
    "fp32_residual_connection",
    "vocab_size",  # padded_vocab_size counts
)
# Part of `_name_or_path` -> whether that model's code divides positions by rope_ratio.
_DIVIDES = {"chatglm2": True, "chatglm3": False, "glm-4": False}
_LAYER = "encoder.layers.*"
_PARTS = {**MEGATRON_PARTS, "attention.o": "self_attention.dense"}


def chatglm(hf: HFConfig) -> ModelPlan:
    hf = hf.with_spellings(**_SPELLINGS)
    hf.fixed("original_rope", True)  # false would pair values half a head apart
    norm, has_bias = _norm(hf), hf.bool("add_bias_linear", False)
    attention = _attention(hf, has_bias)
    mlp = gated_mlp_from(hf, bias=has_bias, inner_size=13696, activation="silu")
    keeps_normed = hf.bool("apply_residual_connection_post_layernorm", False)
    layer = LayerSpec(
        block="normed_residual" if keeps_normed else "pre_norm",
        attention=attention,
        mlp=mlp,
        norms=(norm, norm),
    )
    layout = "concatenated" if hf.bool("multi_query_attention", False) else "per_head"
    weights = weight_map(
        layer_entries(_LAYER, _PARTS),
        fused_qkv(f"{_LAYER}.self_attention.query_key_value", attention, layout),
        fused_gate_up(f"{_LAYER}.mlp.dense_h_to_4h", mlp.inner_size),
        embedding="embedding.word_embeddings",
        final_norm="encoder.final_layernorm",
        head="output_layer",
    )
    vocab_size = hf.optional_int("padded_vocab_size")
    return plan_from(
        hf,
        layer,
        final_norm=norm if hf.bool("post_layer_norm", True) else None,
        embedding=embedding_from(hf, vocab_size=vocab_size),
        head=head_from(hf, vocab_size=vocab_size),
        weights=weights,
        inert=_INERT,
    )


def _norm(hf: HFConfig) -> NormSpec:
    kind = RMSNormSpec if hf.bool("rmsnorm", True) else LayerNormSpec
    return kind(size=hf.int("hidden_size", 4096), eps=hf.fraction("layernorm_epsilon", 1e-5))


def _attention(hf: HFConfig, out_bias: bool) -> AttentionSpec:
    head_dim, groups = hf.int("kv_channels", 128), hf.int("multi_query_group_num", 1)
    attention = attention_with(
        hf,
        _rope(hf, head_dim),
        num_kv_heads=groups if hf.bool("multi_query_attention", False) else None,
        head_dim=head_dim,
        bias=out_bias,
    )
    return replace(attention, qkv_bias=hf.bool("add_qkv_bias", False) or out_bias)


def _rope(hf: HFConfig, head_dim: int) -> RopeSpec:
    """``rope_ratio`` raises the base; the code of ChatGLM2-32k divides positions by it instead, and
    only the name that its config carries tells it apart."""
    ratio, name = hf.float("rope_ratio", 1.0), hf.str("_name_or_path", "")
    known = [divides for part, divides in _DIVIDES.items() if part in name.lower()]
    if ratio != 1.0 and not known:
        logger.warning(
            "rope_ratio = %g is taken to raise the rotary base, as in ChatGLM3 and GLM-4; in "
            "ChatGLM2-32k it divides positions, and nothing in this config tells which is meant "
            "(_name_or_path is %r). For a model made from that one give "
            '--hf-overrides \'{"_name_or_path": "chatglm2-6b-32k"}\', for another one '
            '--hf-overrides \'{"_name_or_path": "chatglm3"}\' to be without this warning',
            ratio,
            name,
        )
    divides = any(known)
    return RopeSpec(
        dim=head_dim // 2,
        theta=10000.0 if divides else 10000.0 * ratio,
        style="interleaved",
        scaling=LinearScaling(factor=ratio) if divides and ratio != 1.0 else None,
    )
