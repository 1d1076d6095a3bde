"""What many architectures read from their configs in the same way, and the names Llama gave.

Builders of parts from an HFConfig. Knows no architecture by name except as the origin of a layout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from quire.errors import UnsupportedModelError
from quire.layers.spec import (
    Activation,
    AlibiSpec,
    AttentionSpec,
    DynamicScaling,
    EmbeddingSpec,
    GatedMLPSpec,
    HeadNormSpec,
    HeadSpec,
    LayerNormSpec,
    LearnedPositionsSpec,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    NormSpec,
    PlainMLPSpec,
    RMSNormSpec,
    RopeScaling,
    RopeSpec,
    RopeStyle,
    YarnScaling,
)
from quire.models.hf_config import REQUIRED, HFConfig, Keys, RopeConfig
from quire.models.spec import DecoderSpec, LayerSpec
from quire.weights.weight_map import Source, WeightMap

# How GPT-2 and its relatives spell the usual keys, for `HFConfig.with_spellings`.
GPT_SPELLINGS = {
    "hidden_act": "activation_function",
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}

# What Hugging Face calls the activations.
ACTIVATION_NAMES: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "gelu_quick",
    "relu": "relu",
    "relu2": "relu2",
}

_LLAMA_LAYER = {
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.o": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
}

# A family reads what its spec asks for; entries that it does not ask for do no harm.
LLAMA_WEIGHTS = WeightMap(
    entries={
        "embedding.weight": Source("model.embed_tokens.weight"),
        **{
            f"layers.*.{ours}.{kind}": Source(f"model.layers.*.{theirs}.{kind}")
            for ours, theirs in _LLAMA_LAYER.items()
            for kind in ("weight", "bias")
        },
        "final_norm.weight": Source("model.norm.weight"),
        "final_norm.bias": Source("model.norm.bias"),
        "head.weight": Source("lm_head.weight"),
        "head.bias": Source("lm_head.bias"),
    },
    ignored=("*.rotary_emb.inv_freq", "lm_head.weight"),  # the head is in some tied checkpoints
)


def rms_norm_from(hf: HFConfig, *, eps: float = 1e-6, weight_offset: float = 0.0) -> RMSNormSpec:
    return RMSNormSpec(
        size=hf.int("hidden_size"),
        eps=hf.float("rms_norm_eps", eps),
        weight_offset=weight_offset,
    )


def layer_norm_from(
    hf: HFConfig,
    *,
    keys: Keys = ("layer_norm_eps", "layer_norm_epsilon"),
    eps: float = 1e-5,
    weight: bool = True,
    bias: bool = True,
    weight_offset: float = 0.0,
) -> LayerNormSpec:
    """``keys``: spellings of the constant; ``eps``: the family's, where the config is silent."""
    return LayerNormSpec(
        size=hf.int("hidden_size"),
        eps=hf.float(keys, eps),
        weight=weight,
        bias=bias,
        weight_offset=weight_offset,
    )


def head_dim_from(hf: HFConfig) -> int:
    hidden_size, num_heads = hf.int("hidden_size"), hf.int("num_attention_heads")
    return hf.optional_int("head_dim") or hidden_size // num_heads


def attention_from(
    hf: HFConfig,
    *,
    qkv_bias: bool = False,
    out_bias: bool = False,
    qk_norms: tuple[HeadNormSpec, HeadNormSpec] | None = None,
    window: int | None = None,
    theta: float = 10000.0,
    head_dim: int | None = None,
    num_kv_heads: int | None = None,
    rope: RopeConfig | None = None,
    style: RopeStyle = "half",
    scale: float | None = None,
    soft_cap: float | None = None,
) -> AttentionSpec:
    """Attention with rotary positions, scaled by 1/sqrt(head size) unless ``scale`` is given.

    ``theta``, ``head_dim`` and ``num_kv_heads`` are the family's values where the config is silent;
    ``rope`` is for families that read theirs in a way of their own.
    """
    head_dim = hf.optional_int("head_dim") or head_dim or head_dim_from(hf)
    num_heads = hf.int("num_attention_heads")
    return replace(
        unrotated_attention_from(
            hf,
            head_dim=head_dim,
            num_kv_heads=hf.int("num_key_value_heads", num_kv_heads or num_heads),
            scale=scale,
        ),
        positions=rope_from(hf, rope or hf.rope(theta=theta), head_dim, style),
        qkv_bias=qkv_bias,
        out_bias=out_bias,
        qk_norms=qk_norms,
        window=window,
        soft_cap=soft_cap,
    )


def unrotated_attention_from(
    hf: HFConfig,
    *,
    positions: AlibiSpec | None = None,
    num_kv_heads: int | None = None,
    head_dim: int | None = None,
    scale: float | None = None,
    bias: bool = False,
) -> AttentionSpec:
    """Attention that leaves q and k as they are; KV heads, unless given, are as many as heads."""
    num_heads = hf.int("num_attention_heads")
    head_dim = head_dim or hf.int("hidden_size") // num_heads
    return AttentionSpec(
        hidden_size=hf.int("hidden_size"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads or num_heads,
        head_dim=head_dim,
        scale=head_dim**-0.5 if scale is None else scale,
        positions=positions,
        qkv_bias=bias,
        out_bias=bias,
    )


def gated_mlp_from(hf: HFConfig, *, bias: bool = False) -> GatedMLPSpec:
    return GatedMLPSpec(
        hidden_size=hf.int("hidden_size"),
        inner_size=hf.int("intermediate_size"),
        activation=hf.choice("hidden_act", ACTIVATION_NAMES, "silu"),
        bias=bias,
    )


def plain_mlp_from(
    hf: HFConfig,
    *,
    bias: bool,
    inner_size: int | None = None,
    activation: str = "gelu",
    activation_keys: Keys = "hidden_act",
) -> PlainMLPSpec:
    """``inner_size`` and ``activation`` are the family's, where the config is silent."""
    return PlainMLPSpec(
        hidden_size=hf.int("hidden_size"),
        inner_size=hf.int("intermediate_size", REQUIRED if inner_size is None else inner_size),
        activation=hf.choice(activation_keys, ACTIVATION_NAMES, activation),
        bias=bias,
    )


def decoder_from(
    hf: HFConfig,
    layers: Sequence[LayerSpec],
    *,
    final_norm: NormSpec | None,
    tied: bool = False,
    positions: LearnedPositionsSpec | None = None,
    embedding_scale: float = 1.0,
    embedding_norm: NormSpec | None = None,
    head_bias: bool = False,
    head_scale: float = 1.0,
    head_soft_cap: float | None = None,
) -> DecoderSpec:
    """A decoder over token embeddings; ``tied`` is the family's default."""
    vocab_size, hidden_size = hf.int("vocab_size"), hf.int("hidden_size")
    return DecoderSpec(
        embedding=EmbeddingSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            scale=embedding_scale,
            positions=positions,
            norm=embedding_norm,
        ),
        layers=tuple(layers),
        final_norm=final_norm,
        head=HeadSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            tied=hf.bool("tie_word_embeddings", tied),
            bias=head_bias,
            scale=head_scale,
            soft_cap=head_soft_cap,
        ),
    )


def windows_by_layer(hf: HFConfig) -> list[int | None]:
    """Each layer's window, of a family that switches windows on and counts layers without one."""
    num_layers = hf.int("num_hidden_layers")
    window = hf.nullable_int("sliding_window", absent=4096)
    first_windowed = hf.int("max_window_layers", 28)
    if not hf.bool("use_sliding_window", False):
        window = None
    kinds = hf.optional_list("layer_types")
    if kinds is None:
        return [window if index >= first_windowed else None for index in range(num_layers)]
    of_kind = {"full_attention": None, "sliding_attention": window}
    unknown = sorted({str(kind) for kind in kinds if kind not in of_kind})
    if unknown or len(kinds) != num_layers:
        raise UnsupportedModelError(
            f"config key 'layer_types' of {hf.architecture} must name one of "
            f"{', '.join(of_kind)} for each of the {num_layers} layers; "
            f"it has {len(kinds)} entries" + (f", among them {unknown}" if unknown else "")
        )
    return [of_kind[kind] for kind in kinds]


def rope_from(hf: HFConfig, rope: RopeConfig, head_dim: int, style: RopeStyle = "half") -> RopeSpec:
    """The rotation of (a part of) each head that the config describes."""
    if rope.type not in _SCALINGS:
        raise UnsupportedModelError(
            f"config key 'rope_scaling' has type {rope.type!r}, which {hf.architecture} in Quire "
            f"does not implement; supported: {', '.join(_SCALINGS)}"
        )
    dim = int(head_dim * rope.partial)
    scaling = _SCALINGS[rope.type](hf, rope)
    if dim < 2 or dim % 2:
        raise UnsupportedModelError(
            f"the config of {hf.architecture} rotates {dim} of a head's {head_dim} values "
            f"(a share of {rope.partial:g}); it must be an even number of at least 2"
        )
    if isinstance(scaling, LongRopeScaling) and {len(scaling.short), len(scaling.long)} != {
        dim // 2
    }:
        raise UnsupportedModelError(
            f"config key 'rope_scaling' has {len(scaling.short)} short and {len(scaling.long)} "
            f"long factors, and {hf.architecture} with these heads needs {dim // 2} of each"
        )
    return RopeSpec(dim=dim, theta=rope.theta, style=style, scaling=scaling)


def _trained_length(hf: HFConfig, rope: RopeConfig) -> int:
    key = "original_max_position_embeddings"
    return int(rope.params[key]) if key in rope.params else hf.int("max_position_embeddings")


def _no_scaling(hf: HFConfig, rope: RopeConfig) -> None:
    return None


def _linear(hf: HFConfig, rope: RopeConfig) -> RopeScaling:
    return LinearScaling(factor=rope.params["factor"])


def _dynamic(hf: HFConfig, rope: RopeConfig) -> RopeScaling:
    return DynamicScaling(
        factor=rope.params["factor"], original_max_positions=_trained_length(hf, rope)
    )


def _llama3(hf: HFConfig, rope: RopeConfig) -> RopeScaling:
    return Llama3Scaling(
        factor=rope.params["factor"],
        low_freq_factor=rope.params["low_freq_factor"],
        high_freq_factor=rope.params["high_freq_factor"],
        original_max_positions=_trained_length(hf, rope),
    )


def _yarn(hf: HFConfig, rope: RopeConfig) -> RopeScaling:
    params = rope.params
    factor = params["factor"]
    return YarnScaling(
        factor=factor,
        original_max_positions=_trained_length(hf, rope),
        attention_factor=params.get("attention_factor", _yarn_temperature(rope)),
        beta_fast=params.get("beta_fast", 32.0),
        beta_slow=params.get("beta_slow", 1.0),
        truncate=params.get("truncate", True),
    )


def _yarn_temperature(rope: RopeConfig) -> float:
    """0.1 ln(factor) + 1 (arXiv:2309.00071, section 3.4), or DeepSeek's ratio of two such."""
    factor = float(rope.params["factor"])
    mscale, all_dim = rope.params.get("mscale"), rope.params.get("mscale_all_dim")

    def stretch(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    return stretch(mscale) / stretch(all_dim) if mscale and all_dim else stretch(1.0)


def _longrope(hf: HFConfig, rope: RopeConfig) -> RopeScaling:
    params, trained = rope.params, _trained_length(hf, rope)
    factor = params.get("factor") or hf.int("max_position_embeddings") / trained
    # Ding et al. 2024 (arXiv:2402.13753), section 3.2
    temperature = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0
    temperature = params.get("attention_factor", temperature)
    return LongRopeScaling(
        short=tuple(params["short_factor"]),
        long=tuple(params["long_factor"]),
        original_max_positions=trained,
        short_attention_factor=params.get("short_mscale", temperature),
        long_attention_factor=params.get("long_mscale", temperature),
    )


_SCALINGS = {
    "default": _no_scaling,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
