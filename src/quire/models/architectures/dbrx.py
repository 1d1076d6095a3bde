"""DBRX: layer norms without biases, clipped q, k and v in one tensor, and many small experts."""

from __future__ import annotations

from quire.errors import UnsupportedModelError
from quire.layers.moe_spec import MoESpec, SoftmaxRouting
from quire.layers.spec import AttentionSpec, EmbeddingSpec, HeadSpec, LayerNormSpec
from quire.models.common import ACTIVATION_NAMES, rope_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import DecoderSpec, LayerSpec
from quire.models.weight_names import fused_qkv, layer_entries, model_entries
from quire.weights.expert_layouts import PiledExperts, TurnedExperts
from quire.weights.weight_map import Source, WeightMap

_INERT = (
    "attn_config.attn_pdrop",
    "ffn_config.hidden_size",  # the model's own
    "ffn_config.moe_jitter_eps",
    "ffn_config.moe_loss_weight",
    "ffn_config.uniform_expert_assignment",
    "num_key_value_heads",
)


def dbrx(hf: HFConfig) -> ModelPlan:
    hidden_size, vocab_size = hf.int("d_model", 2048), hf.int("vocab_size", 32000)
    norm = LayerNormSpec(size=hidden_size, eps=1e-5, bias=False)
    attention, moe = _attention(hf, hidden_size), _moe(hf, hidden_size)
    layer = LayerSpec(block="pre_norm", attention=attention, mlp=moe, norms=(norm, norm))
    tied = hf.bool("tie_word_embeddings", False)
    spec = DecoderSpec(
        embedding=EmbeddingSpec(vocab_size=vocab_size, hidden_size=hidden_size),
        layers=(layer,) * hf.int("n_layers", 24),
        final_norm=norm,
        head=HeadSpec(vocab_size=vocab_size, hidden_size=hidden_size, tied=tied),
    )
    hf.check_unread(_INERT)
    return ModelPlan(spec=spec, weights=_weights(attention, moe.num_experts))


def _attention(hf: HFConfig, hidden_size: int) -> AttentionSpec:
    config, num_heads = hf.nested("attn_config"), hf.int("n_heads", 16)
    head_dim = hidden_size // num_heads
    rope = hf.rope(theta=config.float("rope_theta", 10000.0))
    return AttentionSpec(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=config.int("kv_n_heads", 1),
        head_dim=head_dim,
        scale=head_dim**-0.5,
        positions=rope_from(hf, rope, head_dim),
        clip=config.optional_float("clip_qkv"),
    )


def _moe(hf: HFConfig, hidden_size: int) -> MoESpec:
    config = hf.nested("ffn_config")
    power = config.nullable_float("moe_normalize_expert_weights", absent=1.0)
    if power not in (None, 1.0):
        raise UnsupportedModelError(
            f"config key 'ffn_config.moe_normalize_expert_weights' = {power:g} is not supported "
            f"for {hf.architecture}; supported: 1 and null"
        )
    activation = config.nested("ffn_act_fn").choice("name", ACTIVATION_NAMES, "silu")
    return MoESpec(
        hidden_size=hidden_size,
        inner_size=config.int("ffn_hidden_size", 3584),
        num_experts=config.int("moe_num_experts", 4),
        top_k=config.int("moe_top_k", 1),
        activation=activation,
        routing=SoftmaxRouting(renormalise=power is not None),
    )


def _weights(attention: AttentionSpec, num_experts: int) -> WeightMap:
    inside, ffn = "norm_attn_norm", "blocks.*.ffn"
    names = {
        "attention.o": f"{inside}.attn.out_proj",
        "norm1": f"{inside}.norm_1",
        "norm2": f"{inside}.norm_2",
        "moe.router": "ffn.router.layer",
    }
    gate, up, down = (
        PiledExperts(Source(f"{ffn}.experts.mlp.{name}"), num_experts)
        for name in ("w1", "v1", "w2")
    )
    return WeightMap(
        entries={
            **model_entries(embedding="wte", final_norm="norm_f"),
            **layer_entries("blocks.*", names),
            **fused_qkv(f"blocks.*.{inside}.attn.Wqkv", attention),
            "layers.*.moe.experts.gate.weight": gate,
            "layers.*.moe.experts.up.weight": up,
            "layers.*.moe.experts.down.weight": TurnedExperts(down),
        },
        ignored=("*.rotary_emb.inv_freq",),
        prefixes=("transformer.", ""),
    )
