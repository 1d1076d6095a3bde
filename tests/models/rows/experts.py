"""Families with mixtures of experts, latent attention or sinks."""

from __future__ import annotations

from typing import Any

import transformers

from tests.models.row import SMALL, VOCAB_SIZE, ParityRow, parity_row

_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 20}


def _qwen2_moe(variant: str, **fields: Any) -> ParityRow:
    fields = {
        **SMALL,
        **_EXPERTS,
        "num_experts": 5,
        "shared_expert_intermediate_size": 24,
        **fields,
    }
    return parity_row("Qwen2MoeForCausalLM", variant, transformers.Qwen2MoeConfig, **fields)


def _phimoe(variant: str, architecture: str = "PhimoeForCausalLM", **fields: Any) -> ParityRow:
    fields = {**SMALL, "num_local_experts": 4, "rope_parameters": _rope(), **fields}
    return ParityRow(
        architecture=architecture,
        variant=variant,
        make_config=lambda: transformers.PhimoeConfig(**fields),
        reference="PhimoeForCausalLM",
    )


def _dbrx(variant: str, attn: dict[str, Any], ffn: dict[str, Any], **fields: Any) -> ParityRow:
    sizes = {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128}
    fields = {**sizes, "vocab_size": VOCAB_SIZE, "bos_token_id": 1, "eos_token_id": 2, **fields}
    ffn = {"ffn_hidden_size": 20, "moe_num_experts": 4, "moe_top_k": 2, **ffn}
    fields |= {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 9.0, **attn},
        "ffn_config": ffn,
    }
    return parity_row("DbrxForCausalLM", variant, transformers.DbrxConfig, **fields)


def _gpt_oss(variant: str, **fields: Any) -> ParityRow:
    yarn = _rope("yarn", factor=4.0, original_max_position_embeddings=32, truncate=False)
    sizes = {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 7}
    fields = {**SMALL, **sizes, "rope_parameters": yarn, **fields}
    return parity_row("GptOssForCausalLM", variant, transformers.GptOssConfig, **fields)


_MLA = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 12,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
}


def _deepseek_v2(variant: str, **fields: Any) -> ParityRow:
    routing = {"n_routed_experts": 6, "first_k_dense_replace": 1, "routed_scaling_factor": 1.5}
    fields = {**SMALL, **_MLA, **_EXPERTS, **routing, **fields}
    return parity_row("DeepseekV2ForCausalLM", variant, transformers.DeepseekV2Config, **fields)


def _deepseek_v3(variant: str, **fields: Any) -> ParityRow:
    routing = {"n_routed_experts": 8, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1}
    fields = {**SMALL, **_MLA, **_EXPERTS, **routing, **fields}
    return parity_row("DeepseekV3ForCausalLM", variant, transformers.DeepseekV3Config, **fields)


def _rope(rope_type: str = "default", **params: Any) -> dict[str, Any]:
    return {"rope_type": rope_type, "rope_theta": 1000.0, **params}


def _yarn(**params: Any) -> dict[str, Any]:
    return _rope("yarn", factor=4.0, original_max_position_embeddings=32, **params)


# All positions of the tests lie beyond the trained length, or all within: transformers chooses
# factors by the length of each call.
_LONGROPE = _rope(
    "longrope",
    short_factor=[1.0, 1.5, 2.0, 3.0],
    long_factor=[1.0, 1.5, 2.0, 3.0],
    short_mscale=1.2,
    long_mscale=1.2,
    original_max_position_embeddings=32,
)

ROWS: tuple[ParityRow, ...] = (
    _qwen2_moe("plain"),
    _qwen2_moe("renormalised", norm_topk_prob=True, num_experts_per_tok=3, qkv_bias=False,
               tie_word_embeddings=True),
    _qwen2_moe("some-dense-windows", num_hidden_layers=4, decoder_sparse_step=2,
               use_sliding_window=True, sliding_window=6, max_window_layers=3),
    _phimoe("plain"),
    _phimoe("first-spelling", "PhiMoEForCausalLM", attention_bias=True, lm_head_bias=True,
            router_jitter_noise=0.2, rope_parameters=_LONGROPE),
    _phimoe("window", sliding_window=9, tie_word_embeddings=True, num_local_experts=7),
    _dbrx("plain", {}, {}),
    _dbrx("clipped", {"clip_qkv": 0.5, "kv_n_heads": 4}, {"ffn_act_fn": {"name": "gelu"}},
          rope_parameters=_rope()),
    _dbrx("not-normalised", {"kv_n_heads": 1}, {"moe_normalize_expert_weights": None,
          "moe_top_k": 3}, d_model=36, n_heads=3),
    _gpt_oss("plain"),
    _gpt_oss("no-biases", attention_bias=False, num_key_value_heads=4, rope_parameters=_rope()),
    _gpt_oss("mxfp4-sizes", intermediate_size=64, num_experts_per_tok=3),
    _gpt_oss("full-first", num_hidden_layers=3, num_key_value_heads=1, tie_word_embeddings=True,
             layer_types=["full_attention", "sliding_attention", "full_attention"]),
    _deepseek_v2("groups", topk_method="group_limited_greedy", n_group=3, topk_group=2),
    _deepseek_v2("lite", q_lora_rank=None, topk_method="greedy", n_group=1, topk_group=1,
                 attention_bias=True, rope_parameters=_yarn(mscale=0.7, mscale_all_dim=0.7)),
    _deepseek_v3("plain"),
    _deepseek_v3("yarn", rope_parameters=_yarn(mscale=1.0, mscale_all_dim=1.0, beta_fast=16.0),
                 attention_bias=True, n_group=2, topk_group=1, tie_word_embeddings=True),
    _deepseek_v3("half-split", rope_interleave=False, q_lora_rank=None, n_group=1, topk_group=1,
                 norm_topk_prob=False, num_experts_per_tok=3),
)  # fmt: skip
