"""What many architectures read from their configs in the same way: builders of parts, and of whole
plans, from an HFConfig. Knows no architecture.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

from quire.errors import UnsupportedModelError
from quire.layers.spec import (
    Activation,
    AlibiSpec,
    AttentionSpec,
    DynamicScaling,
    EmbeddingSpec,
    GatedMLPSpec,
    HeadsLayerNormSpec,
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
from quire.models.hf_config import REQUIRED, HFConfig, Keys
from quire.models.plan import ModelPlan
from quire.models.rope_config import ATTN_FACTOR, RopeConfig
from quire.models.spec import DecoderSpec, LayerSpec
from quire.models.weight_names import LLAMA_WEIGHTS
from quire.weights.weight_map import WeightMap

# How GPT-2 and its relatives spell the usual keys, for `HFConfig.with_spellings`.
GPT_SPELLINGS: dict[str, Keys] = {
    "hidden_act": "activation_function",
    "hidden_size": ("n_embd", "n_embed"),
    "intermediate_size": "n_inner",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
# How MosaicML's and others' code spells those keys.
MOSAIC_SPELLINGS: dict[str, Keys] = {
    "hidden_size": "d_model",
    "num_attention_heads": "n_heads",
    "num_hidden_layers": "n_layers",
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


def rms_norm_from(hf: HFConfig, *, eps: float = 1e-6, weight_offset: float = 0.0) -> RMSNormSpec:
    return RMSNormSpec(
        size=hf.int("hidden_size"),
        eps=hf.fraction("rms_norm_eps", eps),
        weight_offset=weight_offset,
    )


def layer_norm_from(
    hf: HFConfig,
    *,
    keys: Keys = ("layer_norm_eps", "layer_norm_epsilon"),
    bias: bool = True,
    weight_offset: float = 0.0,
) -> LayerNormSpec:
    """A layer norm; ``keys`` are the config keys that may hold its epsilon."""
    return LayerNormSpec(
        size=hf.int("hidden_size"),
        eps=hf.fraction(keys, 1e-5),
        bias=bias,
        weight_offset=weight_offset,
    )


def attention_from(
    hf: HFConfig,
    *,
    bias: bool = False,
    qkv_bias: bool = False,
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

    ``bias``: of all four maps; ``qkv_bias``: of all but the last. ``theta``, ``head_dim`` and
    ``num_kv_heads`` are the family's values where the config is silent; ``rope`` is for families
    that read theirs in a way of their own.
    """
    num_heads = hf.int("num_attention_heads")
    head_dim = hf.optional_int("head_dim") or head_dim or hf.int("hidden_size") // num_heads
    return replace(
        attention_with(
            hf,
            rope_from(hf, rope or hf.rope(theta=theta), head_dim, style),
            num_kv_heads=hf.nullable_int("num_key_value_heads", absent=num_kv_heads or num_heads),
            head_dim=head_dim,
            scale=scale,
            bias=bias,
        ),
        qkv_bias=qkv_bias or bias,
        window=window,
        soft_cap=soft_cap,
    )


def attention_with(
    hf: HFConfig,
    positions: RopeSpec | AlibiSpec | None,
    *,
    num_kv_heads: int | None = None,
    head_dim: int | None = None,
    scale: float | None = None,
    bias: bool = False,
) -> AttentionSpec:
    """Attention with these positions; KV heads, unless given, are as many as heads."""
    num_heads = hf.int("num_attention_heads")
    head_dim = head_dim or hf.int("hidden_size") // num_heads
    return AttentionSpec(
        hidden_size=hf.int("hidden_size"),
        num_heads=num_heads,
        num_kv_heads=num_heads if num_kv_heads is None else num_kv_heads,
        head_dim=head_dim,
        scale=head_dim**-0.5 if scale is None else scale,
        positions=positions,
        qkv_bias=bias,
        out_bias=bias,
    )


def norming_each_head(attention: AttentionSpec, norm: NormSpec) -> AttentionSpec:
    """``attention`` with ``norm``, resized to the head size, over each head of q and of k."""
    of_head = replace(norm, size=attention.head_dim)
    return replace(attention, qk_norms=(of_head, of_head))


def norming_all_heads(attention: AttentionSpec, norm: NormSpec) -> AttentionSpec:
    """``attention`` with ``norm``, resized, over all heads of q together and over all of k."""
    q_norm, k_norm = (
        replace(norm, size=heads * attention.head_dim)
        for heads in (attention.num_heads, attention.num_kv_heads)
    )
    return replace(attention, qk_norms=(q_norm, k_norm))


def norming_heads_apart(attention: AttentionSpec, eps: float) -> AttentionSpec:
    """``attention`` with a layer norm per head of q and k; each head has its own weights."""
    q_norm, k_norm = (
        HeadsLayerNormSpec(num_heads=heads, size=attention.head_dim, eps=eps)
        for heads in (attention.num_heads, attention.num_kv_heads)
    )
    return replace(attention, qk_norms=(q_norm, k_norm))


def activation_from(hf: HFConfig, default: str = "silu") -> Activation:
    """The activation; ``default`` is the Hugging Face name used if the config has none."""
    return hf.choice("hidden_act", ACTIVATION_NAMES, default)


def gated_mlp_from(
    hf: HFConfig,
    *,
    bias: bool = False,
    inner_size: int | None = None,
    activation: Activation | None = None,
) -> GatedMLPSpec:
    """A gated MLP; ``inner_size`` is the default for a config without ``intermediate_size``, and
    ``activation`` overrides the config's (default SiLU)."""
    return GatedMLPSpec(
        hidden_size=hf.int("hidden_size"),
        inner_size=hf.int("intermediate_size", REQUIRED if inner_size is None else inner_size),
        activation=activation or activation_from(hf),
        bias=bias,
    )


def plain_mlp_from(
    hf: HFConfig, *, activation: Activation, bias: bool = True, inner_size: int | None = None
) -> PlainMLPSpec:
    """A plain MLP; ``inner_size`` is the default for a config without ``intermediate_size``."""
    return PlainMLPSpec(
        hidden_size=hf.int("hidden_size"),
        inner_size=hf.int("intermediate_size", REQUIRED if inner_size is None else inner_size),
        activation=activation,
        bias=bias,
    )


def embedding_from(
    hf: HFConfig,
    *,
    vocab_size: int | None = None,
    scale: float = 1.0,
    positions: LearnedPositionsSpec | None = None,
    norm: NormSpec | None = None,
    inner_size: int | None = None,
) -> EmbeddingSpec:
    """The token embedding; ``vocab_size`` overrides a config key that is not the number of rows."""
    return EmbeddingSpec(
        vocab_size=vocab_size or hf.int("vocab_size"),
        hidden_size=hf.int("hidden_size"),
        scale=scale,
        positions=positions,
        norm=norm,
        inner_size=inner_size,
    )


def head_from(
    hf: HFConfig,
    *,
    tied: bool = False,
    vocab_size: int | None = None,
    bias: bool = False,
    scale: float = 1.0,
    soft_cap: float | None = None,
    inner_size: int | None = None,
) -> HeadSpec:
    """The output head; ``tied`` is the default for a config without ``tie_word_embeddings``, and
    ``vocab_size`` overrides a config key that is not the number of rows."""
    return HeadSpec(
        vocab_size=vocab_size or hf.int("vocab_size"),
        hidden_size=hf.int("hidden_size"),
        tied=hf.bool("tie_word_embeddings", tied),
        bias=bias,
        scale=scale,
        soft_cap=soft_cap,
        inner_size=inner_size,
    )


def plan_from(
    hf: HFConfig,
    layers: LayerSpec | Sequence[LayerSpec],
    *,
    final_norm: NormSpec | None,
    embedding: EmbeddingSpec | None = None,
    head: HeadSpec | None = None,
    weights: WeightMap = LLAMA_WEIGHTS,
    inert: Collection[str] = (),
) -> ModelPlan:
    """The plan of a config that has been read; refuses config keys that were neither read nor
    ``inert``. A single layer stands for all layers; embedding and head default to the plain ones.
    """
    if isinstance(layers, LayerSpec):
        layers = [layers] * hf.int("num_hidden_layers")
    spec = DecoderSpec(
        embedding=embedding or embedding_from(hf),
        layers=tuple(layers),
        final_norm=final_norm,
        head=head or head_from(hf),
    )
    hf.check_unread(inert)
    if not layers:
        raise UnsupportedModelError(
            f"config key 'num_hidden_layers' = {hf.int('num_hidden_layers')} of {hf.architecture} "
            "must be at least 1"
        )
    return ModelPlan(spec=spec, weights=weights)


def rope_from(hf: HFConfig, rope: RopeConfig, head_dim: int, style: RopeStyle = "half") -> RopeSpec:
    """The rotation of (a part of) each head that the config describes."""
    dim = int(head_dim * rope.partial)
    scaling = _SCALINGS[rope.type](hf, rope)
    if not 2 <= dim <= head_dim or dim % 2:
        raise UnsupportedModelError(_about_odd_share(hf, rope, dim, head_dim))
    if isinstance(scaling, LongRopeScaling) and {len(scaling.short), len(scaling.long)} != {
        dim // 2
    }:
        raise UnsupportedModelError(
            f"config key {rope.key!r} has {len(scaling.short)} short and {len(scaling.long)} "
            f"long factors, and {hf.architecture} with these heads needs {dim // 2} of each"
        )
    return RopeSpec(dim=dim, theta=rope.theta, style=style, scaling=scaling)


def _about_odd_share(hf: HFConfig, rope: RopeConfig, dim: int, head_dim: int) -> str:
    if rope.partial == 1.0:
        return (
            f"config keys 'head_dim', or 'hidden_size' and 'num_attention_heads', give the heads "
            f"of {hf.architecture} {head_dim} values; it must be an even number, for rotary "
            "positions turn them in pairs"
        )
    return (
        f"config key {rope.partial_key!r} = {rope.partial:g} makes {hf.architecture} rotate {dim} "
        f"of a head's {head_dim} values; it must be an even number from 2 to {head_dim}"
    )


def _trained_length(hf: HFConfig, rope: RopeConfig) -> int:
    key = "original_max_position_embeddings"
    return int(rope.params[key]) if key in rope.params else hf.int("max_position_embeddings")


def _no_scaling(hf: HFConfig, rope: RopeConfig) -> None:
    return None


def _linear(hf: HFConfig, rope: RopeConfig) -> RopeScaling:
    return LinearScaling(factor=rope.params["factor"])


def _dynamic(hf: HFConfig, rope: RopeConfig) -> RopeScaling:
    # As in transformers, which ignores original_max_position_embeddings here.
    return DynamicScaling(
        factor=rope.params["factor"], original_max_positions=hf.int("max_position_embeddings")
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
    """0.1 ln(factor) + 1 (arXiv:2309.00071, section 3.4), or DeepSeek's ratio of two such terms;
    times ``attn_factor``, which cancels it in DeepSeek-R1-0528-Qwen3-8B."""
    factor = float(rope.params["factor"])
    mscale, all_dim = rope.params.get("mscale"), rope.params.get("mscale_all_dim")

    def stretch(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    temperature = stretch(mscale) / stretch(all_dim) if mscale and all_dim else stretch(1.0)
    return temperature * float(rope.params.get(ATTN_FACTOR, 1.0))


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
        short_attention_factor=temperature,
        long_attention_factor=temperature,
    )


_SCALINGS = {
    "default": _no_scaling,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
