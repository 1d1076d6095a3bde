"""Falcon, and RefinedWeb as it was called first, in three builds: one KV head and one norm for both
branches (7B), KV groups and a norm for each branch (40B), ALiBi and one branch after the other (RW).
"""

from __future__ import annotations

from quire.layers.spec import (
    AttentionSpec,
    EmbeddingSpec,
    HeadSpec,
    LayerNormSpec,
    PlainMLPSpec,
)
from quire.models.alibi import alibi
from quire.models.common import ACTIVATION_NAMES, rope_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import DecoderSpec, LayerSpec
from quire.models.weight_names import fused_qkv, layer_entries, model_entries
from quire.weights.weight_map import WeightMap

_PARTS = {
    "attention.o": "self_attention.dense",
    "mlp.up": "mlp.dense_h_to_4h",
    "mlp.down": "mlp.dense_4h_to_h",
}


def falcon(hf: HFConfig) -> ModelPlan:
    hidden_size, vocab_size = hf.int(("hidden_size", "n_embed")), hf.int("vocab_size")
    # The first 40B says it by its model type alone.
    is_new = hf.bool("new_decoder_architecture", hf.str("model_type", "") == "RefinedWeb")
    norm = LayerNormSpec(size=hidden_size, eps=hf.float("layer_norm_epsilon", 1e-5))
    norm_names = _norm_names(hf, is_new)
    attention = _attention(hf, hidden_size, is_new)
    mlp = PlainMLPSpec(
        hidden_size=hidden_size,
        inner_size=hf.int("ffn_hidden_size", hf.int("ff_factor", 4) * hidden_size),
        activation=hf.choice("activation", ACTIVATION_NAMES, "gelu"),
        bias=attention.out_bias,
    )
    is_parallel = hf.bool("parallel_attn", True) or is_new
    layer = LayerSpec(
        block="parallel" if is_parallel else "pre_norm",
        attention=attention,
        mlp=mlp,
        norms=(norm,) * len(norm_names),
    )
    spec = DecoderSpec(
        embedding=EmbeddingSpec(vocab_size=vocab_size, hidden_size=hidden_size),
        layers=(layer,) * hf.int(("num_hidden_layers", "n_layer")),
        final_norm=norm,
        head=HeadSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            tied=hf.bool("tie_word_embeddings", True),
        ),
    )
    hf.check_unread()
    return ModelPlan(spec=spec, weights=_weights(attention, norm_names))


def _norm_names(hf: HFConfig, is_new: bool) -> tuple[str, ...]:
    if hf.int("num_ln_in_parallel_attn", 2 if is_new else 1) == 2:
        return ("ln_attn", "ln_mlp")
    is_parallel = hf.bool("parallel_attn", True) or is_new
    return ("input_layernorm",) if is_parallel else ("input_layernorm", "post_attention_layernorm")


def _attention(hf: HFConfig, hidden_size: int, is_new: bool) -> AttentionSpec:
    num_heads = hf.int(("num_attention_heads", "n_head"))
    num_kv_heads = hf.int(("num_kv_heads", "n_head_kv"), num_heads)
    one_kv_head = hf.bool("multi_query", True)
    if not is_new:
        num_kv_heads = 1 if one_kv_head else num_heads
    head_dim = hidden_size // num_heads
    has_bias = hf.bool("bias", False)
    scale = head_dim**-0.5
    has_alibi = hf.bool("alibi", False)
    rope = rope_from(hf, hf.rope(), head_dim)
    return AttentionSpec(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        scale=scale,
        # added to the scores before they are scaled
        positions=alibi(num_heads, scale=scale) if has_alibi else rope,
        qkv_bias=has_bias,
        out_bias=has_bias,
    )


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
