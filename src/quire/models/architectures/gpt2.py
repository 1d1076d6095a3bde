"""GPT-2: learned positions, layer norms, a plain MLP, weights stored as (in, out), a tied head."""

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
from quire.models.spec import DecoderSpec, LayerSpec
from quire.weights.weight_map import Fused, Source, Transposed, WeightMap

_INERT = ("reorder_and_upcast_attn",)  # a guard against overflow in float16


def gpt2(hf: HFConfig) -> ModelPlan:
    hidden_size = hf.int(("n_embd", "hidden_size"))
    vocab_size = hf.int("vocab_size")
    norm = LayerNormSpec(size=hidden_size, eps=hf.float("layer_norm_epsilon", 1e-5))
    mlp = PlainMLPSpec(
        hidden_size=hidden_size,
        inner_size=hf.int("n_inner", 4 * hidden_size),
        activation=hf.choice("activation_function", ACTIVATION_NAMES, "gelu_new"),
    )
    layers = tuple(
        LayerSpec(block="pre_norm", attention=attention, mlp=mlp, norms=(norm, norm))
        for attention in _attentions(hf, hidden_size)
    )
    positions = LearnedPositionsSpec(num_positions=hf.int(("n_positions", "n_ctx"), 1024))
    spec = DecoderSpec(
        embedding=EmbeddingSpec(
            vocab_size=vocab_size, hidden_size=hidden_size, positions=positions
        ),
        layers=layers,
        final_norm=norm,
        head=HeadSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            tied=hf.bool("tie_word_embeddings", True),
        ),
    )
    hf.check_unread(_INERT)
    return ModelPlan(spec=spec, weights=_weights(hidden_size))


def _attentions(hf: HFConfig, hidden_size: int) -> list[AttentionSpec]:
    """Each layer's attention: the scale may fall with the layer's number."""
    num_heads = hf.int(("n_head", "num_attention_heads"))
    head_dim = hidden_size // num_heads
    scale = head_dim**-0.5 if hf.bool("scale_attn_weights", True) else 1.0
    falls = hf.bool("scale_attn_by_inverse_layer_idx", False)
    return [
        AttentionSpec(
            hidden_size=hidden_size,
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=head_dim,
            scale=scale / (index + 1) if falls else scale,
            positions=None,
            qkv_bias=True,
            out_bias=True,
        )
        for index in range(hf.int(("n_layer", "num_hidden_layers")))
    ]


def _weights(hidden_size: int) -> WeightMap:
    qkv_weights = Fused.split(Transposed("h.*.attn.c_attn.weight"), *[hidden_size] * 3)
    qkv_biases = Fused.split("h.*.attn.c_attn.bias", *[hidden_size] * 3)
    turned = {"attention.o": "attn.c_proj", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}
    plain = {"norm1": "ln_1", "norm2": "ln_2"}
    return WeightMap(
        entries={
            "embedding.weight": Source("wte.weight"),
            "embedding.positions.weight": Source("wpe.weight"),
            **{
                f"layers.*.attention.{part}.weight": weight
                for part, weight in zip("qkv", qkv_weights, strict=True)
            },
            **{
                f"layers.*.attention.{part}.bias": bias
                for part, bias in zip("qkv", qkv_biases, strict=True)
            },
            **{
                f"layers.*.{ours}.weight": Transposed(f"h.*.{theirs}.weight")
                for ours, theirs in turned.items()
            },
            **{
                f"layers.*.{ours}.weight": Source(f"h.*.{theirs}.weight")
                for ours, theirs in plain.items()
            },
            **{
                f"layers.*.{ours}.bias": Source(f"h.*.{theirs}.bias")
                for ours, theirs in (turned | plain).items()
            },
            "final_norm.weight": Source("ln_f.weight"),
            "final_norm.bias": Source("ln_f.bias"),
            "head.weight": Source("lm_head.weight"),
        },
        ignored=("*attn.bias", "*attn.masked_bias", "lm_head.weight"),
        prefixes=("transformer.", ""),
    )
