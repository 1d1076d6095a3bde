"""Gemma 3: the older spelling of its two rotary bases means the same as the newer one."""

from __future__ import annotations

from typing import Any

from quire.models.loading import plan_of
from quire.models.spec import DecoderSpec

_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 7,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 64,
    "sliding_window": 8,
    "rms_norm_eps": 1e-6,
}


def _spec(**keys: Any) -> DecoderSpec:
    return plan_of({**_SIZES, **keys}, "Gemma3ForCausalLM").spec


def test_scaling_of_older_files_is_for_full_attention_only() -> None:
    linear = {"rope_type": "linear", "factor": 8.0}
    older = _spec(rope_theta=1e6, rope_local_base_freq=1e4, rope_scaling=linear)
    newer = _spec(
        rope_parameters={
            "full_attention": {**linear, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
    )
    assert older == newer
    local, full = older.ropes
    assert (local.theta, local.scaling) == (1e4, None)
    assert full.theta == 1e6 and full.scaling is not None
