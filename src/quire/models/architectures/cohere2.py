"""Command-R7B and Command A: Command-R's block; three layers with a window and rotation, then one
without either."""

from __future__ import annotations

from dataclasses import replace

from quire.models.common import (
    LLAMA_WEIGHTS,
    attention_from,
    decoder_from,
    gated_mlp_from,
    layer_norm_from,
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


def cohere2(hf: HFConfig) -> ModelPlan:
    norm = layer_norm_from(hf, bias=False)
    bias = hf.bool("attention_bias", False)
    window = hf.int("sliding_window", 4096)
    attention = attention_from(hf, qkv_bias=bias, out_bias=bias, window=window, style="interleaved")
    windowed = LayerSpec(
        block="parallel", attention=attention, mlp=gated_mlp_from(hf), norms=(norm,)
    )
    full = replace(windowed, attention=replace(attention, positions=None, window=None))
    every = hf.int(("sliding_window_pattern", "_sliding_window_pattern", "layer_switch"), 4)
    kinds = layer_types(hf, every_nth_full(hf.int("num_hidden_layers"), every))
    spec = decoder_from(
        hf,
        [windowed if kind == SLIDING else full for kind in kinds],
        final_norm=norm,
        tied=hf.bool("use_embedding_sharing", True),
        head_scale=hf.float("logit_scale", 0.0625),
    )
    for key, value in _FIXED.items():
        hf.fixed(key, value)
    hf.check_unread(("cache_implementation", "use_parallel_embedding"))
    return ModelPlan(spec=spec, weights=LLAMA_WEIGHTS)
