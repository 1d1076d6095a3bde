"""StarCoder and SantaCoder: GPT-2's block with one KV head for all query heads."""

from __future__ import annotations

from quire.layers.spec import LearnedPositionsSpec
from quire.models.common import (
    GPT_SPELLINGS,
    activation_from,
    attention_with,
    embedding_from,
    head_from,
    layer_norm_from,
    plain_mlp_from,
    plan_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import GPT2_PARTS, fused_qkv, layer_entries, weight_map

_INERT = """
    attention_softmax_in_fp32 scale_attention_softmax_in_fp32 inference_runner max_batch_size
    max_sequence_length pad_key_length pre_allocate_kv_cache validate_runner_input
""".split()


def gpt_bigcode(hf: HFConfig) -> ModelPlan:
    hf = hf.with_spellings(**GPT_SPELLINGS)
    norm = layer_norm_from(hf)
    num_kv_heads = 1 if hf.bool("multi_query", True) else hf.int("num_attention_heads")
    hf.fixed("num_key_value_heads", num_kv_heads)
    attention = attention_with(
        hf,
        None,
        num_kv_heads=num_kv_heads,
        scale=None if hf.bool("scale_attn_weights", True) else 1.0,
        bias=True,
    )
    activation = activation_from(hf, "gelu_pytorch_tanh")
    mlp = plain_mlp_from(hf, activation=activation, inner_size=4 * norm.size)
    positions = LearnedPositionsSpec(
        num_positions=hf.int(("n_positions", "max_position_embeddings"), 1024)
    )
    layout = "concatenated" if attention.num_kv_heads == 1 else "per_head"
    return plan_from(
        hf,
        LayerSpec(block="pre_norm", attention=attention, mlp=mlp, norms=(norm, norm)),
        final_norm=norm,
        embedding=embedding_from(hf, positions=positions),
        head=head_from(hf, tied=True),
        weights=weight_map(
            layer_entries("h.*", GPT2_PARTS), fused_qkv("h.*.attn.c_attn", attention, layout)
        ),
        inert=_INERT,
    )
