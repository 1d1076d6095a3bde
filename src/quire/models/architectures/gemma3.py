"""Gemma 3 (text): Gemma 2's block with normed q and k, five windowed layers for a full one, and
rotary positions of two bases."""

from __future__ import annotations

from dataclasses import replace

from quire.layers.spec import AttentionSpec
from quire.models.architectures.gemma2 import gemma_plan
from quire.models.common import attention_from, norming_each_head, rms_norm_from
from quire.models.hf_config import HFConfig
from quire.models.layer_types import FULL, SLIDING, every_nth_full, layer_types
from quire.models.plan import ModelPlan


def gemma3(hf: HFConfig) -> ModelPlan:
    every_nth = hf.int(("sliding_window_pattern", "_sliding_window_pattern"), 6)
    kinds = layer_types(hf, every_nth_full(hf.int("num_hidden_layers"), every_nth))
    window = hf.nullable_int("sliding_window", absent=4096)
    of_kind = {
        FULL: _attention(hf, FULL, "rope_theta", 1e6),
        SLIDING: replace(_attention(hf, SLIDING, "rope_local_base_freq", 1e4), window=window),
    }
    soft_cap = hf.optional_float("final_logit_softcapping")
    return gemma_plan(hf, [of_kind[kind] for kind in kinds], soft_cap)


def _attention(hf: HFConfig, kind: str, theta_key: str, theta: float) -> AttentionSpec:
    """Attention of layer type ``kind``; older files have a base per type (``theta_key``) and apply
    scaling to full attention only."""
    rope = hf.rope(theta_keys=theta_key, theta=theta, layer_type=kind, is_scaled=kind == FULL)
    attention = attention_from(
        hf,
        bias=hf.bool("attention_bias", False),
        head_dim=256,
        num_kv_heads=4,
        rope=rope,
        scale=hf.float("query_pre_attn_scalar", 256) ** -0.5,
    )
    return norming_each_head(attention, rms_norm_from(hf, weight_offset=1.0))
