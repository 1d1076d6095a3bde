"""Llama and the first families after it."""

from __future__ import annotations

from typing import Any

import transformers

from tests.models.row import SMALL, VOCAB_SIZE, ParityRow, parity_row


def _llama(variant: str, **fields: Any) -> ParityRow:
    return parity_row("LlamaForCausalLM", variant, transformers.LlamaConfig, **{**SMALL, **fields})


def _as_llama(architecture: str, **fields: Any) -> ParityRow:
    """Another name of the same."""
    return parity_row(
        architecture,
        "plain",
        transformers.LlamaConfig,
        reference="LlamaForCausalLM",
        **{**SMALL, **fields},
    )


def _llama_rope(rope_type: str, variant: str = "", **params: Any) -> ParityRow:
    rope = {"rope_type": rope_type, "rope_theta": 1000.0, **params}
    return _llama(f"rope-{rope_type}{variant}", rope_parameters=rope)


def _mistral(variant: str, **fields: Any) -> ParityRow:
    return parity_row(
        "MistralForCausalLM", variant, transformers.MistralConfig, **{**SMALL, **fields}
    )


def _qwen2(variant: str, **fields: Any) -> ParityRow:
    return parity_row("Qwen2ForCausalLM", variant, transformers.Qwen2Config, **{**SMALL, **fields})


def _qwen3(variant: str, **fields: Any) -> ParityRow:
    fields = {**SMALL, "head_dim": 16, **fields}
    return parity_row("Qwen3ForCausalLM", variant, transformers.Qwen3Config, **fields)


def _gemma(variant: str, **fields: Any) -> ParityRow:
    fields = {**SMALL, "head_dim": 16, **fields}
    return parity_row("GemmaForCausalLM", variant, transformers.GemmaConfig, **fields)


def _gpt2(variant: str, **fields: Any) -> ParityRow:
    sizes = {"vocab_size": VOCAB_SIZE, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    return parity_row("GPT2LMHeadModel", variant, transformers.GPT2Config, **{**sizes, **fields})


def _mixtral(variant: str, **fields: Any) -> ParityRow:
    fields = {**SMALL, "num_local_experts": 4, "num_experts_per_tok": 2, **fields}
    return parity_row("MixtralForCausalLM", variant, transformers.MixtralConfig, **fields)


def _qwen3_moe(variant: str, **fields: Any) -> ParityRow:
    experts = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
    fields = {**SMALL, "head_dim": 16, **experts, **fields}
    return parity_row("Qwen3MoeForCausalLM", variant, transformers.Qwen3MoeConfig, **fields)


ROWS: tuple[ParityRow, ...] = (
    _llama("plain"),
    _llama("tied", tie_word_embeddings=True),
    _llama("biases", attention_bias=True, mlp_bias=True),
    _llama("all-heads", num_key_value_heads=4),
    _llama("one-kv-head", num_key_value_heads=1),
    _llama("odd-sizes", hidden_size=36, head_dim=10, intermediate_size=50, num_attention_heads=3,
           num_key_value_heads=1, vocab_size=VOCAB_SIZE - 4),
    _llama("gelu", hidden_act="gelu", rms_norm_eps=1e-3),
    _llama_rope("linear", factor=2.0),
    _llama_rope("dynamic", factor=2.0),
    _llama_rope("dynamic", "-with-a-length", factor=2.0, original_max_position_embeddings=32),
    _llama_rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=32),
    _llama_rope("yarn", factor=4.0, original_max_position_embeddings=32),
    _llama_rope("yarn", "-deepseek", factor=4.0, original_max_position_embeddings=32, mscale=1.0,
                mscale_all_dim=0.7, truncate=False),
    _llama_rope("yarn", "-published", factor=4.0, original_max_position_embeddings=32,
                finetuned=True, attn_factor=1),
    _llama_rope("longrope", short_factor=[1.0, 1.5, 2.0, 3.0], long_factor=[1.0, 1.5, 2.0, 3.0],
                short_mscale=1.2, long_mscale=1.2, original_max_position_embeddings=32),
    _as_llama("LLaMAForCausalLM", num_key_value_heads=4, rms_norm_eps=1e-5),
    _as_llama("AquilaModel", rms_norm_eps=1e-3),
    _mistral("no-window", sliding_window=None),
    _mistral("window", sliding_window=7),
    _mistral("head-dim", sliding_window=20, head_dim=12),
    _qwen2("plain"),
    _qwen2("tied", tie_word_embeddings=True, num_key_value_heads=4),
    _qwen2("upper-windows", num_hidden_layers=4, use_sliding_window=True, sliding_window=6,
           max_window_layers=2),
    _qwen2("layer-types", num_hidden_layers=3, use_sliding_window=True, sliding_window=9,
           layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    _qwen3("plain"),
    _qwen3("bias-tied", attention_bias=True, tie_word_embeddings=True),
    _gemma("plain"),
    _gemma("one-kv-head", num_key_value_heads=1),
    _gpt2("plain"),
    _gpt2("scales", scale_attn_by_inverse_layer_idx=True, n_inner=40, activation_function="relu"),
    _gpt2("untied", tie_word_embeddings=False, scale_attn_weights=False),
    _mixtral("plain"),
    _mixtral("window", sliding_window=7, num_experts_per_tok=3),
    _qwen3_moe("plain"),
    _qwen3_moe("renormalised", norm_topk_prob=True, attention_bias=True, num_experts_per_tok=4),
    _qwen3_moe("some-dense", num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[1],
               use_sliding_window=True, sliding_window=6),
)  # fmt: skip
