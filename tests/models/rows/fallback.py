"""Models without a file of their own in Quire: they run through the code of transformers."""

from __future__ import annotations

from typing import Any

import transformers

from tests.models.row import SMALL, ParityRow, parity_row

_ROPE = {"rope_type": "default", "rope_theta": 1000.0}


def _row(name: str, variant: str = "plain", **fields: Any) -> ParityRow:
    config = getattr(transformers, f"{name}Config")
    return parity_row(f"{name}ForCausalLM", variant, config, **{**SMALL, **fields})


def _gemma4(variant: str, **fields: Any) -> ParityRow:
    """Gemma 4 (text): two head sizes, windows in every other layer, embeddings of each layer."""
    return parity_row(
        "Gemma4ForCausalLM", variant, transformers.Gemma4TextConfig,
        **{**SMALL, "num_hidden_layers": 4, "head_dim": 8, "global_head_dim": 16,
           "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"] * 2,
           "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 97,
           "final_logit_softcapping": 5.0, **fields},
    )  # fmt: skip


# Each is another thing to scheduler and cache; they go through the whole engine.
ENGINE_ROWS = (
    _row("Olmo3", "windows", num_hidden_layers=4, sliding_window=7),
    _row("Olmoe", "experts", num_experts=4, num_experts_per_tok=2),
    _row("MiniCPM3", "small-values", num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16,
         qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6, dim_model_base=32,
         tie_word_embeddings=False, scale_emb=2.0),
    _row("DiffLlama", "two-calls-a-layer"),
    _row("BioGpt", "learned-positions"),
)  # fmt: skip

ROWS = (
    *ENGINE_ROWS,
    _row("Arcee"),
    _row("Arcee", "biases-tied", attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    _row("Ernie4_5", "one-kv-head", num_key_value_heads=1, use_bias=True),
    _row("Helium", "interleaved", head_dim=8),
    _row("SeedOss", "odd-sizes", head_dim=12, num_attention_heads=3, num_key_value_heads=1),
    _row("Apertus", rope_parameters=_ROPE),
    _row("Exaone4", "windows", num_hidden_layers=4, sliding_window=6, sliding_window_pattern=4),
    # Other attention than the plainest forgets soft caps in some versions of transformers.
    _row("VaultGemma", "soft-caps", head_dim=8, query_pre_attn_scalar=11, sliding_window=6,
         attn_logit_softcapping=5.0, final_logit_softcapping=3.0, attn_implementation="eager"),
    # Classes that can also build recurrent layers, or layers without keys of their own.
    _row("GraniteMoeHybrid", "attention-only", layer_types=["attention"] * 2, num_local_experts=0,
         num_experts_per_tok=0, shared_intermediate_size=48, position_embedding_type="rope",
         mamba_n_heads=4, mamba_d_head=16, mamba_expand=2),
    _gemma4("own-keys", num_kv_shared_layers=0),
    _gemma4("shared-keys", num_kv_shared_layers=2),
    _row("GraniteMoe", "scales", num_local_experts=4, num_experts_per_tok=2, logits_scaling=3.0,
         attention_multiplier=0.3, embedding_multiplier=2.0, residual_multiplier=0.5),
)  # fmt: skip
