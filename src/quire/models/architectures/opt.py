"""OPT: learned positions from row 2 on, ReLU; the 350m norms after each branch and is narrower at
both ends than inside."""

from __future__ import annotations

from quire.layers.spec import LayerNormSpec, LearnedPositionsSpec
from quire.models.common import (
    activation_from,
    attention_with,
    embedding_from,
    head_from,
    plain_mlp_from,
    plan_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import layer_entries, weight_map
from quire.weights.weight_map import Source

_SPELLINGS = {"hidden_act": "activation_function", "intermediate_size": "ffn_dim"}
_INERT = ("output_projection",)  # the head, which all of them have
_PARTS = {
    **{f"attention.{part}": f"self_attn.{part}_proj" for part in "qkv"},
    "attention.o": "self_attn.out_proj",
    "mlp.up": "fc1",
    "mlp.down": "fc2",
    "norm1": "self_attn_layer_norm",
    "norm2": "final_layer_norm",
}
_WEIGHTS = weight_map(
    layer_entries("layers.*", _PARTS),
    {
        "embedding.up.weight": Source("project_in.weight"),
        "head.down.weight": Source("project_out.weight"),
    },
    embedding="embed_tokens",
    positions="embed_positions",
    final_norm="final_layer_norm",
    prefixes=("model.decoder.", "decoder.", ""),
)


def opt(hf: HFConfig) -> ModelPlan:
    hf = hf.with_spellings(**_SPELLINGS)
    hidden_size, bias = hf.int("hidden_size"), hf.bool("enable_bias", True)
    has_weights = hf.bool("layer_norm_elementwise_affine", True)
    hf.fixed("learned_embeddings", True)  # Galactica's files say so
    hf.fixed("scale_embeddings", False)
    norm = LayerNormSpec(size=hidden_size, eps=1e-5, weight=has_weights, bias=has_weights)
    norm_first = hf.bool("do_layer_norm_before", True)
    ends_plain = hf.bool("_remove_final_layer_norm", False) or not norm_first
    layer = LayerSpec(
        block="pre_norm" if norm_first else "post_norm",
        attention=attention_with(hf, None, bias=bias),
        mlp=plain_mlp_from(hf, activation=activation_from(hf, "relu"), bias=bias),
        norms=(norm, norm),
    )
    edge_size = hf.int("word_embed_proj_dim", hidden_size)
    inner_size = None if edge_size == hidden_size else edge_size
    positions = LearnedPositionsSpec(num_positions=hf.int("max_position_embeddings"), offset=2)
    return plan_from(
        hf,
        layer,
        final_norm=None if ends_plain else norm,
        embedding=embedding_from(hf, positions=positions, inner_size=inner_size),
        head=head_from(hf, tied=True, inner_size=inner_size),
        weights=_WEIGHTS,
        inert=_INERT,
    )
