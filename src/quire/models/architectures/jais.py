"""Jais: GPT-2's names and layouts with ALiBi, a gated MLP, and scales by the rules of muP.

The scales have two spellings: that of Jais-13b, and that of the later ones with ``mup_``.
"""

from __future__ import annotations

from quire.layers.spec import (
    AlibiSpec,
    AttentionSpec,
    EmbeddingSpec,
    GatedMLPSpec,
    HeadSpec,
    LayerNormSpec,
    LearnedPositionsSpec,
    PlainMLPSpec,
)
from quire.models.alibi import alibi
from quire.models.common import ACTIVATION_NAMES
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import DecoderSpec, LayerSpec
from quire.models.weight_names import layer_entries, model_entries
from quire.weights.weight_map import Fused, Operation, Source, Transposed, WeightMap

_INERT = ("reorder_and_upcast_attn",)  # a guard against overflow in float16
_NORMS = {"norm1": "ln_1", "norm2": "ln_2"}
_MAPS = {
    "attention.o": "attn.c_proj",
    "mlp.gate": "mlp.c_fc2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}


def jais(hf: HFConfig) -> ModelPlan:
    hidden_size, vocab_size = hf.int(("n_embd", "hidden_size")), hf.int("vocab_size")
    norm = LayerNormSpec(size=hidden_size, eps=hf.float("layer_norm_epsilon", 1e-5))
    mlp = _mlp(hf, hidden_size)
    layers = tuple(
        LayerSpec(block="pre_norm", attention=attention, mlp=mlp, norms=(norm, norm))
        for attention in _attentions(hf, hidden_size)
    )
    num_positions = hf.int("n_positions", 1024)
    learned = hf.choice("position_embedding_type", {"learned": True, "alibi": False}, "learned")
    spec = DecoderSpec(
        embedding=EmbeddingSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            scale=hf.float(("mup_embeddings_scale", "embeddings_scale"), 1.0),
            positions=LearnedPositionsSpec(num_positions=num_positions) if learned else None,
        ),
        layers=layers,
        final_norm=norm,
        head=HeadSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            tied=hf.bool("tie_word_embeddings", True),
            scale=hf.float(("mup_width_scale", "width_scale"), 1.0)
            * hf.float("mup_output_alpha", 1.0),
        ),
    )
    hf.check_unread(_INERT)
    return ModelPlan(spec=spec, weights=_weights(hidden_size))


def _mlp(hf: HFConfig, hidden_size: int) -> GatedMLPSpec | PlainMLPSpec:
    inner_size = hf.int("n_inner", 4 * hidden_size)
    if hf.str("activation_function", "gelu_new") == "swiglu":
        return GatedMLPSpec(
            hidden_size=hidden_size, inner_size=inner_size, activation="silu", bias=True
        )
    activation = hf.choice("activation_function", ACTIVATION_NAMES, "gelu_new")
    return PlainMLPSpec(hidden_size=hidden_size, inner_size=inner_size, activation=activation)


def _attentions(hf: HFConfig, hidden_size: int) -> list[AttentionSpec]:
    """Each layer's attention: the scale may fall with the layer's number."""
    num_heads = hf.int(("n_head", "num_attention_heads"))
    head_dim = hidden_size // num_heads
    by_dim = hf.bool(("mup_scale_qk_dot_by_d", "scale_qk_dot_by_d"), False)
    scale = 1.0 / head_dim if by_dim else head_dim**-0.5
    if not hf.bool("scale_attn_weights", True):
        scale = 1.0
    falls = hf.bool("scale_attn_by_inverse_layer_idx", False)
    return [
        AttentionSpec(
            hidden_size=hidden_size,
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=head_dim,
            scale=scale / (index + 1) if falls else scale,
            positions=_slopes(hf, num_heads),
            qkv_bias=True,
            out_bias=True,
        )
        for index in range(hf.int(("n_layer", "num_hidden_layers")))
    ]


def _slopes(hf: HFConfig, num_heads: int) -> AlibiSpec | None:
    options = {"learned": None, "alibi": alibi(num_heads)}
    return hf.choice("position_embedding_type", options, "learned")


def _weights(hidden_size: int) -> WeightMap:
    entries: dict[str, Operation] = {
        **model_entries(embedding="wte", final_norm="ln_f"),
        "embedding.positions.weight": Source("wpe.weight"),
        **layer_entries("h.*", {**_NORMS, **_MAPS}),
    }
    for ours, theirs in _MAPS.items():
        entries[f"layers.*.{ours}.weight"] = Transposed(f"h.*.{theirs}.weight")
    fused: dict[str, Operation] = {
        "weight": Transposed("h.*.attn.c_attn.weight"),
        "bias": Source("h.*.attn.c_attn.bias"),
    }
    for kind, operation in fused.items():
        for part, cut in zip("qkv", Fused.split(operation, *[hidden_size] * 3), strict=True):
            entries[f"layers.*.attention.{part}.{kind}"] = cut
    return WeightMap(
        entries=entries,
        ignored=("*relative_pe.slopes", "*attn.bias", "*attn.masked_bias", "lm_head.weight"),
        prefixes=("transformer.", ""),
    )
