"""What the plans of families with experts make of published configs; their logits are compared in
the parity tests."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from transformers import (
    DeepseekV3Config,
    PhimoeConfig,
    PreTrainedConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

from quire.errors import UnsupportedModelError
from quire.layers.mla_spec import MLASpec
from quire.layers.moe_spec import GroupedRouting, MoESpec, SparseMixerRouting
from quire.layers.spec import AttentionSpec, LongRopeScaling, YarnScaling
from quire.models.loading import plan_of
from quire.models.plan import ModelPlan
from quire.weights.packed import BlockScaled, Mxfp4
from quire.weights.weight_map import StackedExperts

DEEPSEEK_V3: dict[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "ep_size": 1,
    "first_k_dense_replace": 3,
    "hidden_act": "silu",
    "hidden_size": 7168,
    "initializer_range": 0.02,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
    },
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "v_head_dim": 128,
    "vocab_size": 129280,
}
DEEPSEEK_V2_LITE: dict[str, Any] = {
    **{key: value for key, value in DEEPSEEK_V3.items() if key != "quantization_config"},
    "aux_loss_alpha": 0.001,
    "first_k_dense_replace": 1,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "n_group": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "pretraining_tp": 1,
    "q_lora_rank": None,
    "rope_scaling": {**DEEPSEEK_V3["rope_scaling"], "mscale": 0.707, "mscale_all_dim": 0.707},
    "routed_scaling_factor": 1.0,
    "scoring_func": "softmax",
    "seq_aux": True,
    "topk_group": 1,
    "topk_method": "greedy",
    "vocab_size": 102400,
}
GPT_OSS: dict[str, Any] = {
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": 200002,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2880,
    "initial_context_length": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "max_position_embeddings": 131072,
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "output_router_logits": False,
    "pad_token_id": 199999,
    "quantization_config": {
        "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"],
        "quant_method": "mxfp4",
    },
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
        "rope_type": "yarn",
        "truncate": False,
    },
    "rope_theta": 150000,
    "router_aux_loss_coef": 0.9,
    "sliding_window": 128,
    "swiglu_limit": 7.0,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 201088,
}
PHI_MOE: dict[str, Any] = {
    "attention_bias": True,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_dropout": 0.0,
    "hidden_size": 4096,
    "input_jitter_noise": 0.01,
    "intermediate_size": 6400,
    "lm_head_bias": True,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 16,
    "original_max_position_embeddings": 4096,
    "output_router_logits": False,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "long_factor": [1.0 + i for i in range(64)],
        "long_mscale": 1.243163121016122,
        "original_max_position_embeddings": 4096,
        "short_factor": [1.0] * 64,
        "short_mscale": 1.243163121016122,
        "type": "longrope",
    },
    "rope_theta": 10000.0,
    "router_aux_loss_coef": 0.0,
    "router_jitter_noise": 0.01,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 32064,
}
DBRX: dict[str, Any] = {
    "attn_config": {"clip_qkv": 8, "kv_n_heads": 8, "model_type": "", "rope_theta": 500000},
    "d_model": 6144,
    "emb_pdrop": 0.0,
    "ffn_config": {
        "ffn_hidden_size": 10752,
        "model_type": "",
        "moe_jitter_eps": 0.01,
        "moe_loss_weight": 0.05,
        "moe_num_experts": 16,
        "moe_top_k": 4,
    },
    "initializer_range": 0.02,
    "max_seq_len": 32768,
    "n_heads": 48,
    "n_layers": 40,
    "output_router_logits": False,
    "resid_pdrop": 0.0,
    "router_aux_loss_coef": 0.05,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 100352,
}


def first(plan: ModelPlan) -> tuple[AttentionSpec | MLASpec | None, MoESpec]:
    """The last layer's attention and its experts."""
    layer = plan.spec.layers[-1]
    assert isinstance(layer.mlp, MoESpec)
    return layer.attention, layer.mlp


def test_deepseek_v3() -> None:
    plan = plan_of(DEEPSEEK_V3, "DeepseekV3ForCausalLM")
    attention, moe = first(plan)
    assert isinstance(attention, MLASpec) and attention.positions.style == "interleaved"
    # 0.1 ln(40) + 1 = 1.3689, squared, over the root of 192
    assert attention.scale == pytest.approx(1.3688879**2 / 192**0.5)
    assert isinstance(attention.positions.scaling, YarnScaling)
    assert attention.positions.scaling.attention_factor == 1.0
    assert isinstance(moe.routing, GroupedRouting)
    assert (moe.routing.num_groups, moe.routing.top_groups, moe.routing.scale) == (8, 4, 2.5)
    assert moe.shared is not None and moe.shared.mlp.inner_size == 2048
    assert [isinstance(layer.mlp, MoESpec) for layer in plan.spec.layers[:4]] == [False] * 3 + [
        True
    ]
    experts = plan.weights.entries["layers.*.moe.experts.up.weight"]
    assert isinstance(experts, StackedExperts) and isinstance(experts.of, BlockScaled)
    assert plan.weights.ignores("model.layers.61.eh_proj.weight")
    assert not plan.weights.ignores("model.layers.6.mlp.gate.weight")
    assert 670e9 < plan.spec.num_parameters < 672e9
    # one latent and one rotated key for each of 61 layers
    assert plan.spec.kv_layout.bytes_per_token(2) == 61 * 576 * 2


def test_deepseek_v2_lite() -> None:
    plan = plan_of(DEEPSEEK_V2_LITE, "DeepseekV2ForCausalLM")
    attention, moe = first(plan)
    assert isinstance(attention, MLASpec) and attention.q_rank is None
    assert moe.shared is not None and moe.shared.mlp.inner_size == 2816
    assert isinstance(moe.routing, GroupedRouting) and moe.routing.num_groups == 1
    assert 15.6e9 < plan.spec.num_parameters < 15.8e9


def test_gpt_oss() -> None:
    plan = plan_of(GPT_OSS, "GptOssForCausalLM")
    attention, moe = first(plan)
    assert isinstance(attention, AttentionSpec) and attention.sinks and attention.window is None
    windows = [group.window for group in plan.spec.kv_layout.groups]
    assert windows == [128, None]
    assert moe.activation == "swiglu_oss" and moe.top_k == 4
    assert isinstance(plan.weights.entries["layers.*.moe.experts.down.weight"], Mxfp4)
    assert 20.8e9 < plan.spec.num_parameters < 21e9


@pytest.mark.parametrize("architecture", ["PhiMoEForCausalLM", "PhimoeForCausalLM"])
def test_phi_moe(architecture: str) -> None:
    own = {"short_mscale": 1.25, "long_mscale": 1.5}
    config = {**PHI_MOE, "rope_scaling": {**PHI_MOE["rope_scaling"], **own}}
    plan = plan_of(config, architecture)
    attention, moe = first(plan)
    assert isinstance(attention, AttentionSpec) and attention.positions is not None
    scaling = attention.positions.scaling  # type: ignore[union-attr]
    assert isinstance(scaling, LongRopeScaling)
    assert (scaling.short_attention_factor, scaling.long_attention_factor) == (1.25, 1.5)
    assert moe.routing == SparseMixerRouting(jitter=0.01)
    assert 41.8e9 < plan.spec.num_parameters < 42e9


def _without(config: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != key}


@pytest.mark.parametrize("key", ["max_position_embeddings", "original_max_position_embeddings"])
def test_the_lengths_of_phi_moe_where_its_config_is_silent(key: str) -> None:
    silent = _without(PHI_MOE, key)
    whole = PhimoeConfig.from_dict(deepcopy(silent)).to_json_string(use_diff=False)
    expected = plan_of(json.loads(whole), "PhiMoEForCausalLM").spec
    assert plan_of(silent, "PhiMoEForCausalLM").spec == expected


def test_the_length_of_phi_moe_makes_its_factor_of_cos_and_sin() -> None:
    """Where it has none of its own."""
    scaling = {key: one for key, one in PHI_MOE["rope_scaling"].items() if "mscale" not in key}
    config = {**PHI_MOE, "rope_scaling": scaling}
    silent = _without(config, "max_position_embeddings")
    spec = plan_of(silent, "PhiMoEForCausalLM").spec
    assert spec == plan_of({**silent, "max_position_embeddings": 131072}, "PhiMoEForCausalLM").spec
    assert spec != plan_of({**silent, "max_position_embeddings": 65536}, "PhiMoEForCausalLM").spec


@pytest.mark.parametrize(
    ("architecture", "config_class", "key", "sizes"),
    [
        ("DeepseekV3ForCausalLM", DeepseekV3Config, "num_experts_per_tok", {}),
        ("Qwen2MoeForCausalLM", Qwen2MoeConfig, "intermediate_size", {}),
        ("Qwen2MoeForCausalLM", Qwen2MoeConfig, "intermediate_size", {"mlp_only_layers": [0]}),
        ("Qwen3MoeForCausalLM", Qwen3MoeConfig, "intermediate_size", {"mlp_only_layers": [0]}),
    ],
)
def test_what_a_config_need_not_say_is_what_transformers_takes_it_for(
    architecture: str, config_class: type[PreTrainedConfig], key: str, sizes: dict[str, Any]
) -> None:
    whole = json.loads(config_class(**sizes).to_json_string(use_diff=False))
    assert whole[key] is not None
    silent = plan_of(_without(whole, key), architecture).spec
    assert silent == plan_of(whole, architecture).spec


@pytest.mark.parametrize("key", ["norm_topk_prob", "rope_interleave"])
def test_null_for_what_silence_switches_on_is_refused(key: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"'{key}' of DeepseekV3ForCausalLM is null"):
        plan_of({**DEEPSEEK_V3, key: None}, "DeepseekV3ForCausalLM")


def test_dbrx() -> None:
    plan = plan_of(DBRX, "DbrxForCausalLM")
    attention, moe = first(plan)
    assert isinstance(attention, AttentionSpec) and attention.clip == 8
    assert attention.positions.theta == 500000  # type: ignore[union-attr]
    assert moe.top_k == 4 and 131e9 < plan.spec.num_parameters < 132e9


@pytest.mark.parametrize(
    ("architecture", "config", "change", "said"),
    [
        ("DeepseekV2ForCausalLM", DEEPSEEK_V2_LITE, {"norm_topk_prob": True}, "'norm_topk_prob'"),
        ("DeepseekV2ForCausalLM", DEEPSEEK_V2_LITE, {"scoring_func": "sigmoid"}, "'scoring_func'"),
        ("DeepseekV2ForCausalLM", DEEPSEEK_V2_LITE, {"mlp_bias": True}, "'mlp_bias'"),
        ("DeepseekV3ForCausalLM", DEEPSEEK_V3, {"topk_method": "greedy"}, "'topk_method'"),
        ("DeepseekV3ForCausalLM", DEEPSEEK_V3, {"quantization_config": {"quant_method": "awq"}},
         "'quantization_config.quant_method' = 'awq'"),
        ("DeepseekV3ForCausalLM", DEEPSEEK_V3, {"quantization_config": {"quant_method": "fp8",
         "weight_block_size": [1, 128]}}, r"weight_block_size' = \[1, 128\]"),
        ("DeepseekV3ForCausalLM", DEEPSEEK_V3, {"quantization_config": {"quant_method": "fp8",
         "scale_fmt": "e4m3", "weight_block_size": [8, 8]}}, r"scale_fmt' = 'e4m3' is not supp"),
        ("GptOssForCausalLM", GPT_OSS, {"swiglu_limit": 5.0}, "'swiglu_limit' = 5"),
        ("GptOssForCausalLM", GPT_OSS, {"hidden_act": "gelu"}, "'hidden_act' = 'gelu'"),
        ("PhiMoEForCausalLM", PHI_MOE, {"num_experts_per_tok": 4}, "'num_experts_per_tok' = 4"),
        ("DbrxForCausalLM", DBRX, {"ffn_config": {"moe_normalize_expert_weights": 2.0}},
         "moe_normalize_expert_weights' = 2"),
        ("DbrxForCausalLM", DBRX, {"attn_config": {"qk_ln": True}}, "'attn_config.qk_ln'"),
    ],
)  # fmt: skip
def test_what_is_not_implemented_is_refused_by_name(
    architecture: str, config: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=said):
        plan_of({**config, **change}, architecture)
