"""Mixtures of experts, and latent attention."""

from __future__ import annotations

import transformers
from hypothesis import strategies as st

from tests.models.variants.dense import qwen2_fields, qwen3_fields
from tests.models.variants.draws import (
    ACTIVATIONS,
    EVEN,
    FLAGS,
    MAX_LEN,
    THETAS,
    WINDOWS,
    Draw,
    Family,
    Fields,
    drawn_layer_types,
    fields_with_head_dim,
    head_counts,
    rope_fields,
    rotary_fields,
    scales,
)


def _experts(draw: Draw, count: str) -> Fields:
    num_experts = draw(st.integers(2, 9))
    top_k = draw(st.integers(1, min(4, num_experts)))
    return {count: num_experts, "num_experts_per_tok": top_k}


def _mixtral(draw: Draw) -> Fields:
    return {
        **fields_with_head_dim(draw),
        **_experts(draw, "num_local_experts"),
        "sliding_window": draw(WINDOWS),
    }


def _qwen_experts(draw: Draw) -> Fields:
    return {
        **_experts(draw, "num_experts"),
        "moe_intermediate_size": draw(st.integers(3, 24)),
        "norm_topk_prob": draw(FLAGS),
        "decoder_sparse_step": draw(st.integers(1, 3)),
        "mlp_only_layers": draw(st.sampled_from([[], [0], [1, 2]])),
    }


def _qwen2_moe(draw: Draw) -> Fields:
    return {
        **qwen2_fields(draw),
        **_qwen_experts(draw),
        "shared_expert_intermediate_size": draw(st.integers(3, 24)),
        "qkv_bias": draw(FLAGS),
    }


def _qwen3_moe(draw: Draw) -> Fields:
    fields = qwen3_fields(draw)
    del fields["max_window_layers"]
    return {**fields, **_qwen_experts(draw)}


def _phimoe(draw: Draw) -> Fields:
    return {
        **rotary_fields(draw),
        **_experts(draw, "num_local_experts"),
        "num_experts_per_tok": 2,
        "attention_bias": draw(FLAGS),
        "lm_head_bias": draw(FLAGS),
        "tie_word_embeddings": False,
        "sliding_window": draw(WINDOWS),
        "router_jitter_noise": draw(st.sampled_from([0.01, 0.2])),
        **rope_fields(draw, scaled=False),
    }


def _dbrx(draw: Draw) -> Fields:
    (num_heads, kv_heads), num_experts = head_counts(draw), draw(st.integers(2, 6))
    rope_theta = draw(THETAS)
    return {
        "vocab_size": draw(st.integers(17, 90)),
        "tie_word_embeddings": False,
        "d_model": num_heads * draw(st.sampled_from(EVEN)),
        "n_heads": num_heads,
        "n_layers": draw(st.integers(1, 2)),
        "max_seq_len": MAX_LEN,
        "attn_config": {
            "kv_n_heads": kv_heads,
            "rope_theta": rope_theta,
            "clip_qkv": draw(st.sampled_from([0.5, 8.0])),
        },
        "ffn_config": {
            "ffn_hidden_size": draw(st.integers(3, 24)),
            "moe_num_experts": num_experts,
            "moe_top_k": draw(st.integers(1, num_experts)),
            "moe_normalize_expert_weights": draw(st.sampled_from([None, 1.0])),
            "ffn_act_fn": {"name": draw(ACTIVATIONS)},
        },
        "rope_parameters": {"rope_type": "default", "rope_theta": rope_theta},
    }


def _gpt_oss(draw: Draw) -> Fields:
    fields = {
        **fields_with_head_dim(draw),
        **_experts(draw, "num_local_experts"),
        "hidden_act": "silu",
    }
    return {
        **fields,
        "attention_bias": draw(FLAGS),
        "sliding_window": draw(WINDOWS.filter(bool)),
        "layer_types": drawn_layer_types(draw, fields["num_hidden_layers"]),
    }


def _mla(draw: Draw) -> Fields:
    fields = rotary_fields(draw)
    if fields["rope_parameters"]["rope_type"] == "yarn":
        weight = draw(st.sampled_from([0.7, 1.0]))
        fields["rope_parameters"] |= {"mscale": 1.0, "mscale_all_dim": weight}
    return {
        **fields,
        "hidden_size": fields["num_attention_heads"] * draw(st.integers(3, 9)),
        "num_key_value_heads": fields["num_attention_heads"],
        "kv_lora_rank": draw(st.integers(3, 20)),
        "q_lora_rank": draw(st.sampled_from([None, 7, 12])),
        "qk_nope_head_dim": draw(st.sampled_from([3, 4, 8])),
        "qk_rope_head_dim": draw(st.sampled_from([4, 6, 10])),
        "v_head_dim": draw(st.integers(2, 9)),
        "attention_bias": draw(FLAGS),
        "moe_intermediate_size": draw(st.integers(3, 20)),
        "first_k_dense_replace": draw(st.integers(0, 2)),
        "n_shared_experts": draw(st.integers(1, 2)),
        "routed_scaling_factor": draw(scales(0.5, 3.0)),
        "num_experts_per_tok": draw(st.integers(1, 3)),
    }


def _deepseek_v2(draw: Draw) -> Fields:
    groups = draw(st.integers(1, 3))
    routing = {"topk_method": "greedy", "n_group": 1, "topk_group": 1}
    if groups > 1:
        top_groups = draw(st.integers(1, groups))
        routing = {"topk_method": "group_limited_greedy", "n_group": groups}
        routing["topk_group"] = top_groups
    return {
        **_mla(draw),
        **routing,
        "n_routed_experts": groups * draw(st.integers(3, 4)),
        # The reference cannot cut a rotated part off that begins in an odd place.
        "qk_nope_head_dim": draw(st.sampled_from([4, 8])),
        "kv_lora_rank": draw(st.sampled_from([4, 10, 16])),
    }


def _deepseek_v3(draw: Draw) -> Fields:
    groups = draw(st.integers(1, 3))
    return {
        **_mla(draw),
        "n_group": groups,
        "topk_group": draw(st.integers(1, groups)),
        "n_routed_experts": groups * draw(st.integers(3, 4)),
        "norm_topk_prob": draw(FLAGS),
        "rope_interleave": draw(FLAGS),
    }


FAMILIES: dict[str, Family] = {
    "DbrxForCausalLM": (transformers.DbrxConfig, _dbrx),
    "DeepseekV2ForCausalLM": (transformers.DeepseekV2Config, _deepseek_v2),
    "DeepseekV3ForCausalLM": (transformers.DeepseekV3Config, _deepseek_v3),
    "GptOssForCausalLM": (transformers.GptOssConfig, _gpt_oss),
    "MixtralForCausalLM": (transformers.MixtralConfig, _mixtral),
    "PhimoeForCausalLM": (transformers.PhimoeConfig, _phimoe),
    "Qwen2MoeForCausalLM": (transformers.Qwen2MoeConfig, _qwen2_moe),
    "Qwen3MoeForCausalLM": (transformers.Qwen3MoeConfig, _qwen3_moe),
}
