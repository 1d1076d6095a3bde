"""Tiny models of various families, each with one or two special parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers
from transformers import PreTrainedConfig

_ENDS: dict[str, Any] = {"vocab_size": 2000, "bos_token_id": 0, "eos_token_id": 1}
_WIDE: dict[str, Any] = {
    **_ENDS,
    "pad_token_id": 0,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "max_position_embeddings": 1024,
}
_GROUPED: dict[str, Any] = {**_WIDE, "num_key_value_heads": 2}
_GPT: dict[str, Any] = {**_ENDS, "n_embd": 256, "n_layer": 4, "n_head": 8, "n_positions": 1024}
_LATENT: dict[str, Any] = {
    **_WIDE,
    "num_key_value_heads": 8,
    "q_lora_rank": 64,
    "kv_lora_rank": 96,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 64,
    "first_k_dense_replace": 1,
    "n_group": 4,
    "topk_group": 2,
}
_OPT: dict[str, Any] = {
    **_ENDS,
    "hidden_size": 256,
    "word_embed_proj_dim": 256,
    "ffn_dim": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "max_position_embeddings": 1024,
}


def _made(config: Callable[..., PreTrainedConfig], fields: dict[str, Any], **more: Any) -> Any:
    return lambda **changes: config(**{**fields, **more, **changes})


# Special part -> architecture, and the function that makes its config.
FAMILY_MODELS: dict[str, tuple[str, Callable[..., PreTrainedConfig]]] = {
    "parallel block": ("GPTNeoXForCausalLM", _made(transformers.GPTNeoXConfig, _WIDE)),
    "alibi": (
        "BloomForCausalLM",
        _made(transformers.BloomConfig, _ENDS, hidden_size=256, n_layer=4, n_head=8),
    ),
    "one kv head": ("GPTBigCodeForCausalLM", _made(transformers.GPTBigCodeConfig, _GPT)),
    "mixture": (
        "MixtralForCausalLM",
        _made(transformers.MixtralConfig, _GROUPED, num_local_experts=8, num_experts_per_tok=2),
    ),
    "latent attention": ("DeepseekV3ForCausalLM", _made(transformers.DeepseekV3Config, _LATENT)),
    "window": (
        "MistralForCausalLM",
        _made(transformers.MistralConfig, _GROUPED, sliding_window=48),
    ),
    "soft cap": (
        "Gemma2ForCausalLM",
        _made(transformers.Gemma2Config, _GROUPED, head_dim=32, sliding_window=64,
              attn_logit_softcapping=5.0, final_logit_softcapping=8.0),
    ),
    "learned positions": ("OPTForCausalLM", _made(transformers.OPTConfig, _OPT)),
    "partial rotary": (
        "PhiForCausalLM",
        _made(transformers.PhiConfig, _WIDE, partial_rotary_factor=0.5),
    ),
    "interleaved": ("GPTJForCausalLM", _made(transformers.GPTJConfig, _GPT, rotary_dim=16)),
    "sinks": (
        "GptOssForCausalLM",
        _made(transformers.GptOssConfig, _GROUPED, head_dim=32, sliding_window=48,
              num_local_experts=8, num_experts_per_tok=2,
              rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
    ),
}  # fmt: skip
