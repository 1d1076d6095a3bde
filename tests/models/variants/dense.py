"""Llama and its relations: attention, then an MLP, behind norms."""

from __future__ import annotations

import transformers
from hypothesis import strategies as st

from tests.models.variants.draws import (
    FLAGS,
    WINDOWS,
    Draw,
    Family,
    Fields,
    drawn_layer_types,
    fields_with_head_dim,
    rope_fields,
    rotary_fields,
    scales,
)


def _llama(draw: Draw) -> Fields:
    return {**fields_with_head_dim(draw), "attention_bias": draw(FLAGS), "mlp_bias": draw(FLAGS)}


def _mistral(draw: Draw) -> Fields:
    return {**fields_with_head_dim(draw), "sliding_window": draw(WINDOWS)}


def qwen2_fields(draw: Draw) -> Fields:
    fields = rotary_fields(draw)
    return {**fields, **_qwen_windows(draw)}


def _qwen_windows(draw: Draw) -> Fields:
    return {
        "use_sliding_window": draw(FLAGS),
        "sliding_window": draw(WINDOWS.filter(bool)),
        "max_window_layers": draw(st.integers(0, 3)),
    }


def qwen3_fields(draw: Draw) -> Fields:
    return {**fields_with_head_dim(draw), "attention_bias": draw(FLAGS), **_qwen_windows(draw)}


def _gemma(draw: Draw) -> Fields:
    fields = fields_with_head_dim(draw)
    del fields["hidden_act"]
    return {**fields, "attention_bias": draw(FLAGS)}


def _gemma2(draw: Draw) -> Fields:
    caps = st.sampled_from([None, 2.0, 30.0])
    return {
        **_gemma(draw),
        "query_pre_attn_scalar": draw(st.integers(3, 40)),
        "attn_logit_softcapping": draw(caps),
        "final_logit_softcapping": draw(caps),
        "sliding_window": draw(WINDOWS.filter(bool)),
    }


def _gemma3(draw: Draw) -> Fields:
    fields = _gemma2(draw)
    del fields["attn_logit_softcapping"]
    full, local = (rope_fields(draw, scaled=scaled)["rope_parameters"] for scaled in (True, False))
    full.pop("truncate", None)  # which transformers looks for in another place
    fields["rope_parameters"] = {"full_attention": full, "sliding_attention": local}
    return {**fields, "layer_types": drawn_layer_types(draw, fields["num_hidden_layers"])}


def _olmo(draw: Draw) -> Fields:
    fields = rotary_fields(draw)
    del fields["rms_norm_eps"]
    clip = draw(st.sampled_from([None, 0.2, 5.0]))
    return {**fields, "attention_bias": draw(FLAGS), "clip_qkv": clip}


def _olmo2(draw: Draw) -> Fields:
    return {**rotary_fields(draw), "attention_bias": draw(FLAGS)}


def _phi3(draw: Draw) -> Fields:
    fields = {**rotary_fields(draw, (4, 8, 12)), "sliding_window": draw(WINDOWS)}
    return {**fields, **rope_fields(draw, (0.5, 1.0), scaled=False)}


def _starcoder2(draw: Draw) -> Fields:
    fields = rotary_fields(draw, eps="norm_epsilon")
    return {**fields, "use_bias": draw(FLAGS), "sliding_window": draw(WINDOWS)}


def _glm(draw: Draw) -> Fields:
    head_dim = draw(st.sampled_from((4, 8, 12)))
    rope = rope_fields(draw, (0.5, 1.0))
    return {
        **fields_with_head_dim(draw),
        "head_dim": head_dim,
        "attention_bias": draw(FLAGS),
        **rope,
    }


def _granite(draw: Draw) -> Fields:
    return {
        **rotary_fields(draw),
        "attention_bias": draw(FLAGS),
        "mlp_bias": draw(FLAGS),
        "embedding_multiplier": draw(scales(0.5, 12.0)),
        "logits_scaling": draw(scales(0.5, 8.0)),
        "residual_multiplier": draw(scales(0.1, 1.0)),
        "attention_multiplier": draw(scales(0.05, 1.0)),
    }


def _nemotron(draw: Draw) -> Fields:
    fields = {**rotary_fields(draw, (4, 8, 12), eps="norm_eps"), **rope_fields(draw, (0.5, 1.0))}
    return {**fields, "attention_bias": draw(FLAGS), "mlp_bias": draw(FLAGS)}


def _smollm3(draw: Draw) -> Fields:
    fields = rotary_fields(draw)
    num_layers = fields["num_hidden_layers"]
    return {
        **fields,
        "no_rope_layers": [int(draw(FLAGS)) for _ in range(num_layers)],
        "use_sliding_window": True,
        "sliding_window": draw(WINDOWS.filter(bool)),
        "layer_types": drawn_layer_types(draw, num_layers),
        "attention_bias": draw(FLAGS),
        "mlp_bias": draw(FLAGS),
    }


FAMILIES: dict[str, Family] = {
    "Gemma2ForCausalLM": (transformers.Gemma2Config, _gemma2),
    "Gemma3ForCausalLM": (transformers.Gemma3TextConfig, _gemma3),
    "GemmaForCausalLM": (transformers.GemmaConfig, _gemma),
    "Glm4ForCausalLM": (transformers.Glm4Config, _glm),
    "GlmForCausalLM": (transformers.GlmConfig, _glm),
    "GraniteForCausalLM": (transformers.GraniteConfig, _granite),
    "LlamaForCausalLM": (transformers.LlamaConfig, _llama),
    "MistralForCausalLM": (transformers.MistralConfig, _mistral),
    "NemotronForCausalLM": (transformers.NemotronConfig, _nemotron),
    "Olmo2ForCausalLM": (transformers.Olmo2Config, _olmo2),
    "OlmoForCausalLM": (transformers.OlmoConfig, _olmo),
    "Phi3ForCausalLM": (transformers.Phi3Config, _phi3),
    "Qwen2ForCausalLM": (transformers.Qwen2Config, qwen2_fields),
    "Qwen3ForCausalLM": (transformers.Qwen3Config, qwen3_fields),
    "SmolLM3ForCausalLM": (transformers.SmolLM3Config, _smollm3),
    "Starcoder2ForCausalLM": (transformers.Starcoder2Config, _starcoder2),
}
