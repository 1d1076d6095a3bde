"""Command-R7B and Command A: Command-R's block; three layers with a window and rotation, then one
without either."""

from __future__ import annotations

from dataclasses import replace

from quire.models.common import (
    attention_from,
    gated_mlp_from,
    head_from,
    layer_norm_from,
    plan_from,
)
from quire.models.hf_config import HFConfig
from quire.models.layer_types import SLIDING, every_nth_full, layer_types
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec

# The originals also say what every model of the family has.
_FIXED = {
    "order_of_interleaved_layers": "local_attn_first",
    "position_embedding_type": "rope_gptj",
    "rotary_pct": 1.0,
    "use_gated_activation": True,
    "use_parallel_block": True,
    "use_qk_norm": False,
}
_INERT = ("cache_implementation", "use_parallel_embedding")


def cohere2(hf: HFConfig) -> ModelPlan:
    for key, value in _FIXED.items():
        hf.fixed(key, value)
    norm = layer_norm_from(hf, bias=False)
    attention = attention_from(
        hf,
        bias=hf.bool("attention_bias", False),
        window=hf.int("sliding_window", 4096),
        style="interleaved",
    )
    windowed = LayerSpec(
        block="parallel", attention=attention, mlp=gated_mlp_from(hf), norms=(norm,)
    )
    full = replace(windowed, attention=replace(attention, positions=None, window=None))
    every = hf.int(("sliding_window_pattern", "_sliding_window_pattern", "layer_switch"), 4)
    kinds = layer_types(hf, every_nth_full(hf.int("num_hidden_layers"), every))
    tied, scale = hf.bool("use_embedding_sharing", True), hf.float("logit_scale", 0.0625)
    return plan_from(
        hf,
        [windowed if kind == SLIDING else full for kind in kinds],
        final_norm=norm,
        head=head_from(hf, tied=tied, scale=scale),
        inert=_INERT,
    )
