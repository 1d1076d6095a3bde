"""Families whose attention and MLP may work side by side."""

from __future__ import annotations

import transformers
from hypothesis import strategies as st

from tests.models.variants.draws import (
    ACTIVATIONS,
    EVEN,
    FLAGS,
    WINDOWS,
    Draw,
    Family,
    Fields,
    drawn_layer_types,
    rope_fields,
    rotary_fields,
    scales,
    without_groups,
)
from tests.models.variants.gpt import gpt_fields


def _gptj(draw: Draw) -> Fields:
    return {**gpt_fields(draw, (4, 5, 7, 10)), "rotary_dim": draw(st.sampled_from([2, 4]))}


def _neox(draw: Draw) -> Fields:
    fields = without_groups(rotary_fields(draw, (4, 8, 12), eps="layer_norm_eps"))
    return {
        **fields,
        **rope_fields(draw, (0.5, 1.0)),
        "use_parallel_residual": draw(FLAGS),
        "attention_bias": draw(FLAGS),
    }


def _falcon(draw: Draw) -> Fields:
    fields = rotary_fields(draw, eps="layer_norm_epsilon")
    is_new = draw(FLAGS)
    # transformers rounds slopes to bfloat16, where those of these numbers of heads are exact.
    has_alibi = fields["num_attention_heads"] in (1, 2, 4) and draw(FLAGS)
    kv_heads = fields.pop("num_key_value_heads")
    del fields["intermediate_size"], fields["hidden_act"]
    return {
        **fields,
        "new_decoder_architecture": is_new,
        "num_kv_heads": kv_heads if is_new else None,
        "num_ln_in_parallel_attn": draw(st.sampled_from([1, 2])) if is_new else None,
        "multi_query": draw(FLAGS),
        "parallel_attn": is_new or draw(FLAGS),
        "alibi": has_alibi,
        "bias": draw(FLAGS),
        "activation": draw(ACTIVATIONS),
        "ffn_hidden_size": draw(st.integers(3, 40)),
    }


def _phi(draw: Draw) -> Fields:
    fields = rotary_fields(draw, (4, 8, 12), eps="layer_norm_eps")
    has_norms = draw(FLAGS)
    if has_norms:
        fields["num_key_value_heads"] = fields["num_attention_heads"]
    rope = rope_fields(draw, (0.5, 1.0))
    return {**fields, "qk_layernorm": has_norms, "tie_word_embeddings": False, **rope}


def _cohere(draw: Draw) -> Fields:
    return {
        **rotary_fields(draw, eps="layer_norm_eps"),
        "attention_bias": draw(FLAGS),
        "use_qk_norm": draw(FLAGS),
        "logit_scale": draw(scales(0.05, 2.0)),
    }


def _cohere2(draw: Draw) -> Fields:
    fields = _cohere(draw)
    del fields["use_qk_norm"]
    return {
        **fields,
        "head_dim": draw(st.sampled_from(EVEN)),
        "sliding_window": draw(WINDOWS.filter(bool)),
        "layer_types": drawn_layer_types(draw, fields["num_hidden_layers"]),
    }


def _stablelm(draw: Draw) -> Fields:
    return {
        **rotary_fields(draw, (4, 8, 12), eps="layer_norm_eps"),
        **rope_fields(draw, (0.5, 1.0)),
        "use_qkv_bias": draw(FLAGS),
        "qk_layernorm": draw(FLAGS),
        "use_parallel_residual": draw(FLAGS),
    }


def _persimmon(draw: Draw) -> Fields:
    fields = without_groups(rotary_fields(draw, (4, 8, 12), eps="layer_norm_eps"))
    return {**fields, **rope_fields(draw, (0.5, 1.0)), "qk_layernorm": draw(FLAGS)}


FAMILIES: dict[str, Family] = {
    "Cohere2ForCausalLM": (transformers.Cohere2Config, _cohere2),
    "CohereForCausalLM": (transformers.CohereConfig, _cohere),
    "FalconForCausalLM": (transformers.FalconConfig, _falcon),
    "GPTJForCausalLM": (transformers.GPTJConfig, _gptj),
    "GPTNeoXForCausalLM": (transformers.GPTNeoXConfig, _neox),
    "PersimmonForCausalLM": (transformers.PersimmonConfig, _persimmon),
    "PhiForCausalLM": (transformers.PhiConfig, _phi),
    "StableLmForCausalLM": (transformers.StableLmConfig, _stablelm),
}
