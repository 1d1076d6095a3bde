"""MPT, as its makers published it and as transformers has it.

transformers' class knows fewer variants: ALiBi always, no biases, an epsilon of its own.
"""

from __future__ import annotations

from dataclasses import replace

from quire.layers.spec import AttentionSpec, LayerNormSpec, LearnedPositionsSpec, PlainMLPSpec
from quire.models.alibi import alibi
from quire.models.common import (
    MOSAIC_SPELLINGS,
    attention_with,
    embedding_from,
    head_from,
    norming_all_heads,
    plan_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import fused_qkv, layer_entries, weight_map

_INERT = (
    "embedding_fraction",  # of gradients
    "fc_type",
    "layer_norm_epsilon",  # the original never reads it
    "loss_fn",
    "name",
    "use_pad_tok_in_ffn",
    "attn_config.alibi_bias_max",  # without ALiBi
    "attn_config.attn_impl",
    "attn_config.fused_qkv",  # the tensors tell
    "attn_config.kv_n_heads",  # of other kinds of attention
    "attn_config.rope_*",  # how, if it were on
    "ffn_config.fc_type",
)
_PARTS = {
    "attention.o": "attn.out_proj",
    "attention.q_norm": "attn.q_ln",
    "attention.k_norm": "attn.k_ln",
    "mlp.up": "ffn.up_proj",
    "mlp.down": "ffn.down_proj",
    "norm1": "norm_1",
    "norm2": "norm_2",
}
_NORMS = {"low_precision_layernorm": None, "layernorm": None}  # one in the dtype, one in float32


def mpt(hf: HFConfig) -> ModelPlan:
    hf = hf.with_spellings(**MOSAIC_SPELLINGS)
    is_original = hf.architecture == "MPTForCausalLM"
    hidden_size = hf.int("hidden_size")
    bias = not hf.bool("no_bias", not is_original) and is_original
    eps = 1e-5 if is_original else hf.fraction("layer_norm_epsilon", 1e-5)
    norm = LayerNormSpec(size=hidden_size, eps=eps, bias=bias)
    hf.choice("norm_type", _NORMS, "layernorm")
    hf.nested("ffn_config").choice("ffn_type", {"mptmlp": None}, "mptmlp")
    attention = _attention(hf, bias)
    mlp = PlainMLPSpec(
        hidden_size=hidden_size,
        inner_size=int(hf.float("expansion_ratio", 4) * hidden_size),
        activation="gelu",
        bias=bias,
    )
    learns_positions = hf.bool("learned_pos_emb", True) and attention.positions is None
    positions = LearnedPositionsSpec(num_positions=hf.int("max_seq_len", 2048))
    logit_scale = hf.optional_float("logit_scale")
    return plan_from(
        hf,
        LayerSpec(block="pre_norm", attention=attention, mlp=mlp, norms=(norm, norm)),
        final_norm=norm,
        embedding=embedding_from(hf, positions=positions if learns_positions else None),
        head=head_from(hf, tied=True, scale=1.0 if logit_scale is None else logit_scale),
        weights=weight_map(
            layer_entries("blocks.*", _PARTS),
            fused_qkv("blocks.*.attn.Wqkv", attention),
            final_norm="norm_f",
        ),
        inert=_INERT,
    )


def _attention(hf: HFConfig, bias: bool) -> AttentionSpec:
    config, num_heads = hf.nested("attn_config"), hf.int("num_attention_heads")
    # transformers' class has no other positions, whatever the key says.
    has_alibi = config.bool("alibi", False) or hf.architecture == "MptForCausalLM"
    slopes = alibi(num_heads, max_bias=config.float("alibi_bias_max", 8.0))
    window = config.int("sliding_window_size", -1)
    attention = replace(
        attention_with(
            hf,
            slopes if has_alibi else None,
            num_kv_heads=_num_kv_heads(config, num_heads),
            scale=config.optional_float("softmax_scale"),
            bias=bias,
        ),
        clip=config.optional_float("clip_qkv") or None,  # 0 switches it off
        window=None if window < 0 else window + 1,
    )
    if not config.bool("qk_ln", False):
        return attention
    return norming_all_heads(attention, LayerNormSpec(size=0, eps=1e-5, bias=bias))


def _num_kv_heads(config: HFConfig, num_heads: int) -> int:
    kinds = {"multihead_attention": num_heads, "multiquery_attention": 1}
    if config.str("attn_type", "multihead_attention") == "grouped_query_attention":
        return config.int("kv_n_heads")
    return config.choice("attn_type", kinds, "multihead_attention")
