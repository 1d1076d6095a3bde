"""OLMo as its makers published it first: norms that may have no weights, q, k and v in one matrix,
and an MLP whose gate is the second half. transformers' own layout is another file's."""

from __future__ import annotations

from quire.layers.spec import (
    AttentionSpec,
    EmbeddingSpec,
    GatedMLPSpec,
    HeadSpec,
    LayerNormSpec,
    LearnedPositionsSpec,
)
from quire.models.common import rope_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import DecoderSpec, LayerSpec
from quire.models.weight_names import KINDS, fused_qkv, layer_entries, model_entries
from quire.weights.weight_map import Fused, Operation, Source, WeightMap

_INERT = (
    "alibi_bias_max",  # ALiBi itself is refused
    "block_group_size",
    "flash_attention",
    "precision",
    "rope_full_precision",
    "tie_word_embeddings",  # weight_tying counts
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
    hidden_size = hf.int(("d_model", "hidden_size"), 768)
    vocab_size = hf.optional_int("embedding_size") or hf.int("vocab_size")
    hf.optional_int("vocab_size")  # the rows in use
    hf.choice("block_type", {"sequential": None}, "sequential")
    hf.choice("activation_type", {"swiglu": None}, "swiglu")
    bias = hf.bool("include_bias", True)
    norm = _norm(hf, hidden_size, hf.bool("layer_norm_with_affine", True), bias)
    mlp = GatedMLPSpec(
        hidden_size=hidden_size,
        inner_size=hf.int("mlp_hidden_size", int(hf.float("mlp_ratio", 4) * hidden_size)) // 2,
        activation="silu",
        bias=bias,
    )
    attention = _attention(hf, hidden_size, bias)
    layer = LayerSpec(block="pre_norm", attention=attention, mlp=mlp, norms=(norm, norm))
    learned = LearnedPositionsSpec(num_positions=hf.int("max_sequence_length", 1024))
    spec = DecoderSpec(
        embedding=EmbeddingSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            positions=learned if attention.positions is None else None,
        ),
        layers=(layer,) * hf.int(("n_layers", "num_hidden_layers"), 12),
        final_norm=norm,
        head=HeadSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            tied=hf.bool("weight_tying", True),
            scale=hidden_size**-0.5 if hf.bool("scale_logits", False) else 1.0,
        ),
    )
    hf.check_unread(_INERT)
    return ModelPlan(spec=spec, weights=_weights(attention, mlp.inner_size))


def _norm(hf: HFConfig, size: int, has_weight: bool, linear_bias: bool) -> LayerNormSpec:
    hf.choice("layer_norm_type", _NORMS, "default")
    return LayerNormSpec(
        size=size,
        eps=hf.float("layer_norm_eps", 1e-5),
        weight=has_weight,
        bias=has_weight and hf.bool("bias_for_layer_norm", linear_bias),
    )


def _attention(hf: HFConfig, hidden_size: int, bias: bool) -> AttentionSpec:
    num_heads = hf.int(("n_heads", "num_attention_heads"), 12)
    head_dim = hidden_size // num_heads
    shared = hf.bool("multi_query_attention", False)
    num_kv_heads = hf.int("n_kv_heads", 1 if shared else num_heads)
    affine = hf.bool("attention_layer_norm_with_affine", True)
    q_norm, k_norm = (
        _norm(hf, count * head_dim, affine, bias) for count in (num_heads, num_kv_heads)
    )
    return AttentionSpec(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        scale=head_dim**-0.5,
        positions=rope_from(hf, hf.rope(), head_dim) if hf.bool("rope", False) else None,
        qkv_bias=bias,
        out_bias=bias,
        qk_norms=(q_norm, k_norm) if hf.bool("attention_layer_norm", False) else None,
        clip=hf.optional_float("clip_qkv"),
    )


def _weights(attention: AttentionSpec, inner_size: int) -> WeightMap:
    halves: dict[str, Operation] = {}
    for kind in KINDS:
        up, gate = Fused.split(f"blocks.*.ff_proj.{kind}", inner_size, inner_size)
        halves |= {f"layers.*.mlp.up.{kind}": up, f"layers.*.mlp.gate.{kind}": gate}
    return WeightMap(
        entries={
            **model_entries(embedding="wte", final_norm="ln_f", head="ff_out"),
            "embedding.positions.weight": Source("wpe.weight"),
            **layer_entries("blocks.*", _PARTS),
            **fused_qkv("blocks.*.att_proj", attention),
            **halves,
        },
        ignored=("*transformer.ff_out.weight", "ff_out.weight"),
        prefixes=("model.transformer.", "transformer.", ""),
    )
