"""OPT: learned positions from row 2 on, ReLU; the 350m norms after each branch and is narrower at
both ends than inside."""

from __future__ import annotations

from quire.layers.spec import (
    AttentionSpec,
    EmbeddingSpec,
    HeadSpec,
    LayerNormSpec,
    LearnedPositionsSpec,
    PlainMLPSpec,
)
from quire.models.common import ACTIVATION_NAMES
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import BlockKind, DecoderSpec, LayerSpec
from quire.models.weight_names import layer_entries, model_entries
from quire.weights.weight_map import Source, WeightMap

# `_remove_final_layer_norm` begins with "_", which is inert elsewhere: it is read here.
_PARTS = {
    **{f"attention.{part}": f"self_attn.{part}_proj" for part in "qkv"},
    "attention.o": "self_attn.out_proj",
    "mlp.up": "fc1",
    "mlp.down": "fc2",
    "norm1": "self_attn_layer_norm",
    "norm2": "final_layer_norm",
}
_WEIGHTS = WeightMap(
    entries={
        **model_entries(embedding="embed_tokens", final_norm="final_layer_norm"),
        "embedding.positions.weight": Source("embed_positions.weight"),
        "embedding.up.weight": Source("project_in.weight"),
        "head.down.weight": Source("project_out.weight"),
        **layer_entries("layers.*", _PARTS),
    },
    ignored=("lm_head.weight",),
    prefixes=("model.decoder.", "decoder.", ""),
)


def opt(hf: HFConfig) -> ModelPlan:
    hidden_size, vocab_size = hf.int("hidden_size"), hf.int("vocab_size")
    edge_size = hf.int("word_embed_proj_dim", hidden_size)
    inner_size = None if edge_size == hidden_size else edge_size
    has_weights = hf.bool("layer_norm_elementwise_affine", True)
    norm = LayerNormSpec(size=hidden_size, eps=1e-5, weight=has_weights, bias=has_weights)
    norm_first = hf.bool("do_layer_norm_before", True)
    ends_plain = hf.bool("_remove_final_layer_norm", False) or not norm_first
    positions = LearnedPositionsSpec(num_positions=hf.int("max_position_embeddings"), offset=2)
    spec = DecoderSpec(
        embedding=EmbeddingSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            positions=positions,
            inner_size=inner_size,
        ),
        layers=(_layer(hf, norm, "pre_norm" if norm_first else "post_norm"),)
        * hf.int("num_hidden_layers"),
        final_norm=None if ends_plain else norm,
        head=HeadSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            tied=hf.bool("tie_word_embeddings", True),
            inner_size=inner_size,
        ),
    )
    hf.check_unread()
    return ModelPlan(spec=spec, weights=_WEIGHTS)


def _layer(hf: HFConfig, norm: LayerNormSpec, block: BlockKind) -> LayerSpec:
    hidden_size, num_heads = hf.int("hidden_size"), hf.int("num_attention_heads")
    head_dim = hidden_size // num_heads
    bias = hf.bool("enable_bias", True)
    attention = AttentionSpec(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=head_dim,
        scale=head_dim**-0.5,
        positions=None,
        qkv_bias=bias,
        out_bias=bias,
    )
    mlp = PlainMLPSpec(
        hidden_size=hidden_size,
        inner_size=hf.int("ffn_dim"),
        activation=hf.choice("activation_function", ACTIVATION_NAMES, "relu"),
        bias=bias,
    )
    return LayerSpec(block=block, attention=attention, mlp=mlp, norms=(norm, norm))
