"""Families whose attention and MLP work side by side, and their relatives."""

from __future__ import annotations

from typing import Any

import transformers

from tests.models.row import SMALL, VOCAB_SIZE, ParityRow, parity_row

_MHA = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}


def _gptj(variant: str, **fields: Any) -> ParityRow:
    sizes = {"vocab_size": VOCAB_SIZE, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128,
             "rotary_dim": 4, "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
    return parity_row("GPTJForCausalLM", variant, transformers.GPTJConfig, **{**sizes, **fields})


def _neox(variant: str, **fields: Any) -> ParityRow:
    return parity_row(
        "GPTNeoXForCausalLM", variant, transformers.GPTNeoXConfig, **{**_MHA, **fields}
    )


def _falcon(variant: str, **fields: Any) -> ParityRow:
    fields = {**_MHA, **fields}
    del fields["intermediate_size"]
    return parity_row("FalconForCausalLM", variant, transformers.FalconConfig, **fields)


def _phi(variant: str, **fields: Any) -> ParityRow:
    return parity_row("PhiForCausalLM", variant, transformers.PhiConfig, **{**SMALL, **fields})


def _cohere(variant: str, **fields: Any) -> ParityRow:
    fields = {**SMALL, "pad_token_id": 0, **fields}
    return parity_row("CohereForCausalLM", variant, transformers.CohereConfig, **fields)


def _cohere2(variant: str, **fields: Any) -> ParityRow:
    fields = {**SMALL, "pad_token_id": 0, "num_hidden_layers": 4, "sliding_window": 7, **fields}
    return parity_row("Cohere2ForCausalLM", variant, transformers.Cohere2Config, **fields)


def _stablelm(variant: str, **fields: Any) -> ParityRow:
    return parity_row(
        "StableLmForCausalLM", variant, transformers.StableLmConfig, **{**SMALL, **fields}
    )


def _persimmon(variant: str, **fields: Any) -> ParityRow:
    return parity_row(
        "PersimmonForCausalLM", variant, transformers.PersimmonConfig, **{**_MHA, **fields}
    )


def _rope(partial: float | None = None, **params: Any) -> dict[str, Any]:
    share = {} if partial is None else {"partial_rotary_factor": partial}
    return {"rope_type": "default", "rope_theta": 1000.0, **share, **params}


ROWS: tuple[ParityRow, ...] = (
    _gptj("plain"),
    _gptj("whole-heads", rotary_dim=8, n_inner=50, activation_function="relu"),
    _gptj("tied-odd", tie_word_embeddings=True, n_embd=30, n_head=3, rotary_dim=6,
          layer_norm_epsilon=1e-3),
    _neox("plain"),
    _neox("sequential", use_parallel_residual=False, rope_parameters=_rope(0.5)),
    _neox("no-bias-tied", attention_bias=False, tie_word_embeddings=True,
          hidden_act="gelu_fast", rope_parameters=_rope(1.0, rope_type="linear", factor=2.0)),
    _falcon("7b"),
    _falcon("7b-bias", bias=True, num_attention_heads=2, tie_word_embeddings=False,
            rope_parameters=_rope()),
    _falcon("40b", new_decoder_architecture=True, num_kv_heads=2),
    _falcon("11b", new_decoder_architecture=True, num_kv_heads=1, num_ln_in_parallel_attn=1,
            ffn_hidden_size=50, activation="relu", layer_norm_epsilon=1e-3),
    _falcon("rw", alibi=True, multi_query=False, parallel_attn=False, bias=True),
    _falcon("sequential", parallel_attn=False),
    _falcon("alibi-7b", alibi=True),
    _phi("plain"),
    _phi("all-heads-norms", num_key_value_heads=4, qk_layernorm=True, hidden_act="gelu"),
    _phi("whole-heads", rope_parameters=_rope(1.0), layer_norm_eps=1e-3),
    _cohere("plain"),
    _cohere("norms", use_qk_norm=True, logit_scale=0.5),
    _cohere("bias-untied", attention_bias=True, tie_word_embeddings=False, num_key_value_heads=1,
            rope_parameters=_rope(), layer_norm_eps=1e-3),
    _cohere2("plain"),
    _cohere2("types", layer_types=["full_attention", "sliding_attention"] * 2, attention_bias=True,
             num_key_value_heads=4, logit_scale=1.0, rope_parameters=_rope()),
    _cohere2("one-in-two", sliding_window_pattern=2, tie_word_embeddings=False, sliding_window=20),
    _stablelm("plain"),
    _stablelm("parallel-norms", use_parallel_residual=True, qk_layernorm=True,
              rope_parameters=_rope(0.5)),
    _stablelm("bias-tied", use_qkv_bias=True, tie_word_embeddings=True, layer_norm_eps=1e-3,
              num_key_value_heads=4, rope_parameters=_rope(1.0)),
    _persimmon("plain"),
    _persimmon("no-norms", qk_layernorm=False, hidden_act="gelu", rope_parameters=_rope(0.25)),
    _persimmon("linear-tied", tie_word_embeddings=True, layer_norm_eps=1e-3,
               rope_parameters=_rope(1.0, rope_type="linear", factor=4.0)),
)  # fmt: skip
