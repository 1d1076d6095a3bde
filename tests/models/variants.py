"""Random variants of every family that transformers has a class for, as strategies.

A strategy draws the fields of a config: head counts and sizes, groups, biases, tied heads, norms,
activations, rotary types, windows. Sizes are small and, where a family allows it, odd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers
from hypothesis import strategies as st
from transformers import PreTrainedConfig

from tests.models.row import ParityRow

Fields = dict[str, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]

MAX_LEN = 64
_flags = st.booleans()
_eps = st.sampled_from([1e-6, 1e-5, 1e-2])
_windows = st.sampled_from([None, 1, 2, 5, 16, 100])
_activations = st.sampled_from(
    ["silu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu2"]
)
_thetas = st.sampled_from([100.0, 1e4, 5e6])
_EVEN, _ANY = (4, 6, 10, 16), (5, 6, 7, 10)  # head sizes


def _scales(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda value: round(value, 3))


def _heads(draw: Draw) -> tuple[int, int]:
    """Query heads, KV heads."""
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return kv_heads * group, kv_heads


def _common(draw: Draw) -> Fields:
    return {
        "vocab_size": draw(st.integers(17, 90)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "tie_word_embeddings": draw(_flags),
        "max_position_embeddings": MAX_LEN,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


def _rope(draw: Draw, shares: tuple[float, ...] = (), *, scaled: bool = True) -> Fields:
    kinds = ["default", "linear", "dynamic", "llama3", "yarn"] if scaled else ["default"]
    kind = draw(st.sampled_from(kinds))
    params: Fields = {"rope_type": kind, "rope_theta": draw(_thetas)}
    if kind != "default":
        params["factor"] = draw(_scales(1.0, 8.0))
    if kind == "llama3":
        params |= {"low_freq_factor": 1.0, "high_freq_factor": draw(_scales(1.5, 5.0))}
    if kind in ("llama3", "yarn"):
        params["original_max_position_embeddings"] = draw(st.sampled_from([4, 16, 32]))
    if kind == "yarn":
        params |= {"beta_fast": draw(_scales(4.0, 40.0)), "beta_slow": draw(_scales(0.5, 2.0))}
        params |= draw(st.sampled_from([{}, {"attention_factor": 1.3}, {"truncate": False}]))
    if shares:
        params["partial_rotary_factor"] = draw(st.sampled_from(shares))
    return {"rope_parameters": params}


def _rotary(draw: Draw, head_dims: tuple[int, ...] = _EVEN, *, eps: str = "rms_norm_eps") -> Fields:
    """Llama's keys, for classes that take the head size from the hidden size."""
    num_heads, num_kv_heads = _heads(draw)
    return {
        **_common(draw),
        "hidden_size": num_heads * draw(st.sampled_from(head_dims)),
        "intermediate_size": draw(st.integers(3, 40)),
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "hidden_act": draw(_activations),
        eps: draw(_eps),
        **_rope(draw),
    }


def _with_head_dim(draw: Draw) -> Fields:
    """Of those that say the head size, the hidden size need not follow from it."""
    fields = _rotary(draw)
    return {
        **fields,
        "hidden_size": fields["num_attention_heads"] * draw(st.integers(3, 9)),
        "head_dim": draw(st.sampled_from(_EVEN)),
    }


def _all_heads(fields: Fields) -> Fields:
    """Without groups."""
    return {key: value for key, value in fields.items() if key != "num_key_value_heads"}


def _layer_types(draw: Draw, num_layers: int) -> list[str]:
    kinds = st.sampled_from(["full_attention", "sliding_attention"])
    return [draw(kinds) for _ in range(num_layers)]


def _llama(draw: Draw) -> Fields:
    return {**_with_head_dim(draw), "attention_bias": draw(_flags), "mlp_bias": draw(_flags)}


def _mistral(draw: Draw) -> Fields:
    return {**_with_head_dim(draw), "sliding_window": draw(_windows)}


def _qwen2(draw: Draw) -> Fields:
    fields = _rotary(draw)
    return {**fields, **_qwen_windows(draw)}


def _qwen_windows(draw: Draw) -> Fields:
    return {
        "use_sliding_window": draw(_flags),
        "sliding_window": draw(_windows.filter(bool)),
        "max_window_layers": draw(st.integers(0, 3)),
    }


def _qwen3(draw: Draw) -> Fields:
    return {**_with_head_dim(draw), "attention_bias": draw(_flags), **_qwen_windows(draw)}


def _gemma(draw: Draw) -> Fields:
    fields = _with_head_dim(draw)
    del fields["hidden_act"]
    return {**fields, "attention_bias": draw(_flags)}


def _gemma2(draw: Draw) -> Fields:
    caps = st.sampled_from([None, 2.0, 30.0])
    return {
        **_gemma(draw),
        "query_pre_attn_scalar": draw(st.integers(3, 40)),
        "attn_logit_softcapping": draw(caps),
        "final_logit_softcapping": draw(caps),
        "sliding_window": draw(_windows.filter(bool)),
    }


def _gemma3(draw: Draw) -> Fields:
    fields = _gemma2(draw)
    del fields["attn_logit_softcapping"]
    full, local = (_rope(draw, scaled=scaled)["rope_parameters"] for scaled in (True, False))
    full.pop("truncate", None)  # which transformers looks for in another place
    fields["rope_parameters"] = {"full_attention": full, "sliding_attention": local}
    return {**fields, "layer_types": _layer_types(draw, fields["num_hidden_layers"])}


def _olmo(draw: Draw) -> Fields:
    fields = _rotary(draw)
    del fields["rms_norm_eps"]
    clip = draw(st.sampled_from([None, 0.2, 5.0]))
    return {**fields, "attention_bias": draw(_flags), "clip_qkv": clip}


def _olmo2(draw: Draw) -> Fields:
    return {**_rotary(draw), "attention_bias": draw(_flags)}


def _phi3(draw: Draw) -> Fields:
    fields = {**_rotary(draw, (4, 8, 12)), "sliding_window": draw(_windows)}
    return {**fields, **_rope(draw, (0.5, 1.0), scaled=False)}


def _starcoder2(draw: Draw) -> Fields:
    fields = _rotary(draw, eps="norm_epsilon")
    return {**fields, "use_bias": draw(_flags), "sliding_window": draw(_windows)}


def _glm(draw: Draw) -> Fields:
    head_dim = draw(st.sampled_from((4, 8, 12)))
    rope = _rope(draw, (0.5, 1.0), scaled=False)
    return {**_with_head_dim(draw), "head_dim": head_dim, "attention_bias": draw(_flags), **rope}


def _granite(draw: Draw) -> Fields:
    return {
        **_rotary(draw),
        "attention_bias": draw(_flags),
        "mlp_bias": draw(_flags),
        "embedding_multiplier": draw(_scales(0.5, 12.0)),
        "logits_scaling": draw(_scales(0.5, 8.0)),
        "residual_multiplier": draw(_scales(0.1, 1.0)),
        "attention_multiplier": draw(_scales(0.05, 1.0)),
    }


def _nemotron(draw: Draw) -> Fields:
    fields = {**_rotary(draw, (4, 8, 12), eps="norm_eps"), **_rope(draw, (0.5, 1.0), scaled=False)}
    return {**fields, "attention_bias": draw(_flags), "mlp_bias": draw(_flags)}


def _smollm3(draw: Draw) -> Fields:
    fields = _rotary(draw)
    num_layers = fields["num_hidden_layers"]
    return {
        **fields,
        "no_rope_layers": [int(draw(_flags)) for _ in range(num_layers)],
        "use_sliding_window": True,
        "sliding_window": draw(_windows.filter(bool)),
        "layer_types": _layer_types(draw, num_layers),
        "attention_bias": draw(_flags),
        "mlp_bias": draw(_flags),
    }


def _gpt(draw: Draw, head_dims: tuple[int, ...] = _ANY) -> Fields:
    """GPT-2's keys."""
    fields, num_heads = _common(draw), draw(st.integers(1, 5))
    del fields["max_position_embeddings"], fields["num_hidden_layers"]
    return {
        **fields,
        "n_embd": num_heads * draw(st.sampled_from(head_dims)),
        "n_head": num_heads,
        "n_layer": draw(st.integers(1, 3)),
        "n_positions": MAX_LEN,
        "n_inner": draw(st.sampled_from([None, 7, 24])),
        "activation_function": draw(_activations),
        "layer_norm_epsilon": draw(_eps),
    }


def _gpt2(draw: Draw) -> Fields:
    return {
        **_gpt(draw),
        "scale_attn_weights": draw(_flags),
        "scale_attn_by_inverse_layer_idx": draw(_flags),
    }


def _bigcode(draw: Draw) -> Fields:
    return {**_gpt(draw), "multi_query": draw(_flags), "scale_attn_weights": draw(_flags)}


def _gptj(draw: Draw) -> Fields:
    return {**_gpt(draw, (4, 5, 7, 10)), "rotary_dim": draw(st.sampled_from([2, 4]))}


def _bloom(draw: Draw) -> Fields:
    fields, num_heads = _common(draw), draw(st.integers(1, 11))
    return {
        "vocab_size": fields["vocab_size"],
        "tie_word_embeddings": fields["tie_word_embeddings"],
        "hidden_size": num_heads * draw(st.sampled_from(_ANY)),
        "n_head": num_heads,
        "n_layer": fields["num_hidden_layers"],
        "layer_norm_epsilon": draw(_eps),
        "apply_residual_connection_post_layernorm": draw(_flags),
    }


def _opt(draw: Draw) -> Fields:
    fields, num_heads = _common(draw), draw(st.integers(1, 5))
    hidden_size = num_heads * draw(st.sampled_from(_ANY))
    return {
        **fields,
        "hidden_size": hidden_size,
        "num_attention_heads": num_heads,
        "ffn_dim": draw(st.integers(3, 30)),
        "word_embed_proj_dim": draw(st.sampled_from([hidden_size, 7])),
        "activation_function": draw(_activations),
        "do_layer_norm_before": draw(_flags),
        "enable_bias": draw(_flags),
        "layer_norm_elementwise_affine": draw(_flags),
        "_remove_final_layer_norm": draw(_flags),
    }


def _mpt(draw: Draw) -> Fields:
    fields, num_heads = _common(draw), draw(st.integers(1, 11))
    return {
        "vocab_size": fields["vocab_size"],
        "d_model": num_heads * draw(st.sampled_from(_ANY)),
        "n_heads": num_heads,
        "n_layers": fields["num_hidden_layers"],
        "max_seq_len": MAX_LEN,
        "layer_norm_epsilon": draw(_eps),
        "attn_config": {
            "clip_qkv": draw(st.sampled_from([None, 0.3])),
            "softmax_scale": draw(st.sampled_from([None, 0.2])),
        },
    }


def _neox(draw: Draw) -> Fields:
    fields = _all_heads(_rotary(draw, (4, 8, 12), eps="layer_norm_eps"))
    return {
        **fields,
        **_rope(draw, (0.5, 1.0), scaled=False),
        "use_parallel_residual": draw(_flags),
        "attention_bias": draw(_flags),
    }


def _falcon(draw: Draw) -> Fields:
    fields = _rotary(draw, eps="layer_norm_epsilon")
    is_new = draw(_flags)
    # transformers rounds slopes to bfloat16, where those of these numbers of heads are exact.
    has_alibi = fields["num_attention_heads"] in (1, 2, 4) and draw(_flags)
    kv_heads = fields.pop("num_key_value_heads")
    del fields["intermediate_size"], fields["hidden_act"]
    return {
        **fields,
        "new_decoder_architecture": is_new,
        "num_kv_heads": kv_heads if is_new else None,
        "num_ln_in_parallel_attn": draw(st.sampled_from([1, 2])) if is_new else None,
        "multi_query": draw(_flags),
        "parallel_attn": is_new or draw(_flags),
        "alibi": has_alibi,
        "bias": draw(_flags),
        "activation": draw(_activations),
        "ffn_hidden_size": draw(st.integers(3, 40)),
    }


def _phi(draw: Draw) -> Fields:
    fields = _rotary(draw, (4, 8, 12), eps="layer_norm_eps")
    has_norms = draw(_flags)
    if has_norms:
        fields["num_key_value_heads"] = fields["num_attention_heads"]
    rope = _rope(draw, (0.5, 1.0), scaled=False)
    return {**fields, "qk_layernorm": has_norms, "tie_word_embeddings": False, **rope}


def _cohere(draw: Draw) -> Fields:
    return {
        **_rotary(draw, eps="layer_norm_eps"),
        "attention_bias": draw(_flags),
        "use_qk_norm": draw(_flags),
        "logit_scale": draw(_scales(0.05, 2.0)),
    }


def _cohere2(draw: Draw) -> Fields:
    fields = _cohere(draw)
    del fields["use_qk_norm"]
    return {
        **fields,
        "head_dim": draw(st.sampled_from(_EVEN)),
        "sliding_window": draw(_windows.filter(bool)),
        "layer_types": _layer_types(draw, fields["num_hidden_layers"]),
    }


def _stablelm(draw: Draw) -> Fields:
    return {
        **_rotary(draw, (4, 8, 12), eps="layer_norm_eps"),
        **_rope(draw, (0.5, 1.0), scaled=False),
        "use_qkv_bias": draw(_flags),
        "qk_layernorm": draw(_flags),
        "use_parallel_residual": draw(_flags),
    }


def _persimmon(draw: Draw) -> Fields:
    fields = _all_heads(_rotary(draw, (4, 8, 12), eps="layer_norm_eps"))
    return {**fields, **_rope(draw, (0.5, 1.0), scaled=False), "qk_layernorm": draw(_flags)}


def _experts(draw: Draw, count: str) -> Fields:
    num_experts = draw(st.integers(2, 9))
    top_k = draw(st.integers(1, min(4, num_experts)))
    return {count: num_experts, "num_experts_per_tok": top_k}


def _mixtral(draw: Draw) -> Fields:
    return {
        **_with_head_dim(draw),
        **_experts(draw, "num_local_experts"),
        "sliding_window": draw(_windows),
    }


def _qwen_experts(draw: Draw) -> Fields:
    return {
        **_experts(draw, "num_experts"),
        "moe_intermediate_size": draw(st.integers(3, 24)),
        "norm_topk_prob": draw(_flags),
        "decoder_sparse_step": draw(st.integers(1, 3)),
        "mlp_only_layers": draw(st.sampled_from([[], [0], [1, 2]])),
    }


def _qwen2_moe(draw: Draw) -> Fields:
    return {
        **_qwen2(draw),
        **_qwen_experts(draw),
        "shared_expert_intermediate_size": draw(st.integers(3, 24)),
        "qkv_bias": draw(_flags),
    }


def _qwen3_moe(draw: Draw) -> Fields:
    fields = _qwen3(draw)
    del fields["max_window_layers"]
    return {**fields, **_qwen_experts(draw)}


def _phimoe(draw: Draw) -> Fields:
    return {
        **_rotary(draw),
        **_experts(draw, "num_local_experts"),
        "num_experts_per_tok": 2,
        "attention_bias": draw(_flags),
        "lm_head_bias": draw(_flags),
        "tie_word_embeddings": False,
        "sliding_window": draw(_windows),
        "router_jitter_noise": draw(st.sampled_from([0.01, 0.2])),
        **_rope(draw, scaled=False),
    }


def _dbrx(draw: Draw) -> Fields:
    (num_heads, kv_heads), num_experts = _heads(draw), draw(st.integers(2, 6))
    rope_theta = draw(_thetas)
    return {
        "vocab_size": draw(st.integers(17, 90)),
        "tie_word_embeddings": False,
        "d_model": num_heads * draw(st.sampled_from(_EVEN)),
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
            "ffn_act_fn": {"name": draw(_activations)},
        },
        "rope_parameters": {"rope_type": "default", "rope_theta": rope_theta},
    }


def _gpt_oss(draw: Draw) -> Fields:
    fields = {**_with_head_dim(draw), **_experts(draw, "num_local_experts"), "hidden_act": "silu"}
    return {
        **fields,
        "attention_bias": draw(_flags),
        "sliding_window": draw(_windows.filter(bool)),
        "layer_types": _layer_types(draw, fields["num_hidden_layers"]),
    }


def _mla(draw: Draw) -> Fields:
    fields = _rotary(draw)
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
        "attention_bias": draw(_flags),
        "moe_intermediate_size": draw(st.integers(3, 20)),
        "first_k_dense_replace": draw(st.integers(0, 2)),
        "n_shared_experts": draw(st.integers(1, 2)),
        "routed_scaling_factor": draw(_scales(0.5, 3.0)),
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
        "norm_topk_prob": draw(_flags),
        "rope_interleave": draw(_flags),
    }


_FAMILIES: dict[str, tuple[type[PreTrainedConfig], Callable[[Draw], Fields]]] = {
    "BloomForCausalLM": (transformers.BloomConfig, _bloom),
    "Cohere2ForCausalLM": (transformers.Cohere2Config, _cohere2),
    "CohereForCausalLM": (transformers.CohereConfig, _cohere),
    "DbrxForCausalLM": (transformers.DbrxConfig, _dbrx),
    "DeepseekV2ForCausalLM": (transformers.DeepseekV2Config, _deepseek_v2),
    "DeepseekV3ForCausalLM": (transformers.DeepseekV3Config, _deepseek_v3),
    "FalconForCausalLM": (transformers.FalconConfig, _falcon),
    "GPT2LMHeadModel": (transformers.GPT2Config, _gpt2),
    "GPTBigCodeForCausalLM": (transformers.GPTBigCodeConfig, _bigcode),
    "GPTJForCausalLM": (transformers.GPTJConfig, _gptj),
    "GPTNeoXForCausalLM": (transformers.GPTNeoXConfig, _neox),
    "Gemma2ForCausalLM": (transformers.Gemma2Config, _gemma2),
    "Gemma3ForCausalLM": (transformers.Gemma3TextConfig, _gemma3),
    "GemmaForCausalLM": (transformers.GemmaConfig, _gemma),
    "Glm4ForCausalLM": (transformers.Glm4Config, _glm),
    "GlmForCausalLM": (transformers.GlmConfig, _glm),
    "GptOssForCausalLM": (transformers.GptOssConfig, _gpt_oss),
    "GraniteForCausalLM": (transformers.GraniteConfig, _granite),
    "LlamaForCausalLM": (transformers.LlamaConfig, _llama),
    "MistralForCausalLM": (transformers.MistralConfig, _mistral),
    "MixtralForCausalLM": (transformers.MixtralConfig, _mixtral),
    "MptForCausalLM": (transformers.MptConfig, _mpt),
    "NemotronForCausalLM": (transformers.NemotronConfig, _nemotron),
    "OPTForCausalLM": (transformers.OPTConfig, _opt),
    "Olmo2ForCausalLM": (transformers.Olmo2Config, _olmo2),
    "OlmoForCausalLM": (transformers.OlmoConfig, _olmo),
    "PersimmonForCausalLM": (transformers.PersimmonConfig, _persimmon),
    "Phi3ForCausalLM": (transformers.Phi3Config, _phi3),
    "PhiForCausalLM": (transformers.PhiConfig, _phi),
    "PhimoeForCausalLM": (transformers.PhimoeConfig, _phimoe),
    "Qwen2ForCausalLM": (transformers.Qwen2Config, _qwen2),
    "Qwen2MoeForCausalLM": (transformers.Qwen2MoeConfig, _qwen2_moe),
    "Qwen3ForCausalLM": (transformers.Qwen3Config, _qwen3),
    "Qwen3MoeForCausalLM": (transformers.Qwen3MoeConfig, _qwen3_moe),
    "SmolLM3ForCausalLM": (transformers.SmolLM3Config, _smollm3),
    "StableLmForCausalLM": (transformers.StableLmConfig, _stablelm),
    "Starcoder2ForCausalLM": (transformers.Starcoder2Config, _starcoder2),
}
ARCHITECTURES = sorted(_FAMILIES)


def variants(architecture: str) -> st.SearchStrategy[ParityRow]:
    """Rows of this architecture, each with another config; its fields are the row's variant."""
    config, fields_of = _FAMILIES[architecture]

    @st.composite
    def row(draw: Draw) -> ParityRow:
        fields = fields_of(draw)
        return ParityRow(
            architecture=architecture,
            variant=str(fields),
            make_config=lambda: config(**fields),
        )

    return row()
