"""StarCoder and SantaCoder: GPT-2's block with one KV head for all query heads."""

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
from quire.models.weight_names import fused_qkv, layer_entries, model_entries
from quire.weights.weight_map import Source, WeightMap

_INERT = (
    "attention_softmax_in_fp32",
    "scale_attention_softmax_in_fp32",
    "inference_runner",
    "max_batch_size",
    "max_sequence_length",
    "pad_key_length",
    "pre_allocate_kv_cache",
    "validate_runner_input",
)
_PARTS = {
    "attention.o": "attn.c_proj",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
    "norm1": "ln_1",
    "norm2": "ln_2",
}


def gpt_bigcode(hf: HFConfig) -> ModelPlan:
    hidden_size, vocab_size = hf.int(("n_embd", "hidden_size")), hf.int("vocab_size")
    attention = _attention(hf, hidden_size)
    norm = LayerNormSpec(size=hidden_size, eps=hf.float("layer_norm_epsilon", 1e-5))
    mlp = PlainMLPSpec(
        hidden_size=hidden_size,
        inner_size=hf.int("n_inner", 4 * hidden_size),
        activation=hf.choice("activation_function", ACTIVATION_NAMES, "gelu_pytorch_tanh"),
    )
    layer = LayerSpec(block="pre_norm", attention=attention, mlp=mlp, norms=(norm, norm))
    positions = LearnedPositionsSpec(
        num_positions=hf.int(("n_positions", "max_position_embeddings"), 1024)
    )
    spec = DecoderSpec(
        embedding=EmbeddingSpec(
            vocab_size=vocab_size, hidden_size=hidden_size, positions=positions
        ),
        layers=(layer,) * hf.int(("n_layer", "num_hidden_layers")),
        final_norm=norm,
        head=HeadSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            tied=hf.bool("tie_word_embeddings", True),
        ),
    )
    hf.check_unread(_INERT)
    return ModelPlan(spec=spec, weights=_weights(attention))


def _attention(hf: HFConfig, hidden_size: int) -> AttentionSpec:
    num_heads = hf.int(("n_head", "num_attention_heads"))
    head_dim = hidden_size // num_heads
    num_kv_heads = 1 if hf.bool("multi_query", True) else num_heads
    return AttentionSpec(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=hf.int("num_key_value_heads", num_kv_heads),
        head_dim=head_dim,
        scale=head_dim**-0.5 if hf.bool("scale_attn_weights", True) else 1.0,
        positions=None,
        qkv_bias=True,
        out_bias=True,
    )


def _weights(attention: AttentionSpec) -> WeightMap:
    layout = "concatenated" if attention.num_kv_heads == 1 else "per_head"
    return WeightMap(
        entries={
            **model_entries(embedding="wte", final_norm="ln_f"),
            "embedding.positions.weight": Source("wpe.weight"),
            **layer_entries("h.*", _PARTS),
            **fused_qkv("h.*.attn.c_attn", attention, layout),
        },
        ignored=("*attn.bias", "*attn.masked_bias", "lm_head.weight"),
        prefixes=("transformer.", ""),
    )
