"""Baichuan and Baichuan2: Llama with q, k and v in one matrix.

Four models share two names. The 13B ones have ALiBi and no rotary positions; both of Baichuan2
divide every row of the head by its length. Their code differs and their configs do not say so, but
for keys that only one of the config classes writes.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.alibi import alibi
from quire.models.common import attention_from, gated_mlp_from, head_from, plan_from, rms_norm_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import fused_qkv, llama_weights_with

_BAICHUAN2_VOCABULARY = 125696


def baichuan_7b(hf: HFConfig) -> ModelPlan:
    return _plan(hf, is_rotary=True)


def baichuan(hf: HFConfig) -> ModelPlan:
    return _plan(hf, is_rotary=hf.optional_int("max_position_embeddings") is not None)


def _plan(hf: HFConfig, *, is_rotary: bool) -> ModelPlan:
    norm = rms_norm_from(hf)
    attention = attention_from(hf)
    if not is_rotary:
        attention = replace(attention, positions=alibi(attention.num_heads))
    layer = LayerSpec(
        block="pre_norm", attention=attention, mlp=gated_mlp_from(hf), norms=(norm, norm)
    )
    return plan_from(
        hf,
        layer,
        final_norm=norm,
        head=replace(head_from(hf), unit_rows=_is_second(hf)),
        weights=llama_weights_with({}, fused_qkv("model.layers.*.self_attn.W_pack", attention)),
    )


def _is_second(hf: HFConfig) -> bool:
    has_its_key = hf.optional_float("z_loss_weight") is not None
    return has_its_key or hf.int("vocab_size") == _BAICHUAN2_VOCABULARY
