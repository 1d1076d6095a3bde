"""MPT, as its makers published it and as transformers has it.

transformers' class knows fewer variants: ALiBi always, no biases, an epsilon of its own.
"""

from __future__ import annotations

from quire.layers.spec import (
    AttentionSpec,
    EmbeddingSpec,
    HeadSpec,
    LayerNormSpec,
    LearnedPositionsSpec,
    PlainMLPSpec,
)
from quire.models.alibi import alibi
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import DecoderSpec, LayerSpec
from quire.models.weight_names import fused_qkv, layer_entries, model_entries
from quire.weights.weight_map import Source, WeightMap

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
    hidden_size, vocab_size = hf.int(("d_model", "hidden_size"), 2048), hf.int("vocab_size", 50368)
    is_original = hf.architecture == "MPTForCausalLM"
    bias = not hf.bool("no_bias", not is_original) and is_original
    hf.choice("norm_type", _NORMS, "layernorm")
    eps = 1e-5 if is_original else hf.float("layer_norm_epsilon", 1e-5)
    norm = LayerNormSpec(size=hidden_size, eps=eps, bias=bias)
    hf.nested("ffn_config").choice("ffn_type", {"mptmlp": None}, "mptmlp")
    mlp = PlainMLPSpec(
        hidden_size=hidden_size,
        inner_size=int(hf.float("expansion_ratio", 4) * hidden_size),
        activation="gelu",
        bias=bias,
    )
    attention = _attention(hf, hidden_size, bias)
    learns_positions = hf.bool("learned_pos_emb", True) and attention.positions is None
    layer = LayerSpec(block="pre_norm", attention=attention, mlp=mlp, norms=(norm, norm))
    logit_scale = hf.optional_float("logit_scale")
    spec = DecoderSpec(
        embedding=EmbeddingSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            positions=_positions(hf) if learns_positions else None,
        ),
        layers=(layer,) * hf.int(("n_layers", "num_hidden_layers"), 24),
        final_norm=norm,
        head=HeadSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            tied=hf.bool("tie_word_embeddings", True),
            scale=1.0 if logit_scale is None else logit_scale,
        ),
    )
    hf.check_unread(_INERT)
    return ModelPlan(spec=spec, weights=_weights(attention))


def _positions(hf: HFConfig) -> LearnedPositionsSpec:
    return LearnedPositionsSpec(num_positions=hf.int("max_seq_len", 2048))


def _attention(hf: HFConfig, hidden_size: int, bias: bool) -> AttentionSpec:
    config, num_heads = hf.nested("attn_config"), hf.int(("n_heads", "num_attention_heads"), 16)
    head_dim = hidden_size // num_heads
    num_kv_heads = _num_kv_heads(config, num_heads)
    norms = tuple(
        LayerNormSpec(size=count * head_dim, eps=1e-5, bias=bias)
        for count in (num_heads, num_kv_heads)
    )
    # transformers' class has no other positions, whatever the key says.
    uses_alibi = config.bool("alibi", False) or hf.architecture == "MptForCausalLM"
    scale = config.optional_float("softmax_scale")
    window = config.int("sliding_window_size", -1)
    return AttentionSpec(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        scale=head_dim**-0.5 if scale is None else scale,
        positions=alibi(num_heads, max_bias=config.float("alibi_bias_max", 8.0))
        if uses_alibi
        else None,
        qkv_bias=bias,
        out_bias=bias,
        qk_norms=(norms[0], norms[1]) if config.bool("qk_ln", False) else None,
        clip=config.optional_float("clip_qkv"),
        window=None if window < 0 else window + 1,
    )


def _num_kv_heads(config: HFConfig, num_heads: int) -> int:
    kinds = {"multihead_attention": num_heads, "multiquery_attention": 1}
    if config.str("attn_type", "multihead_attention") == "grouped_query_attention":
        return config.int("kv_n_heads")
    return config.choice("attn_type", kinds, "multihead_attention")


def _weights(attention: AttentionSpec) -> WeightMap:
    return WeightMap(
        entries={
            **model_entries(embedding="wte", final_norm="norm_f"),
            "embedding.positions.weight": Source("wpe.weight"),
            **layer_entries("blocks.*", _PARTS),
            **fused_qkv("blocks.*.attn.Wqkv", attention),
        },
        ignored=("lm_head.weight",),
        prefixes=("transformer.", ""),
    )
