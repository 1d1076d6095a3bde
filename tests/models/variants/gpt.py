"""GPT-2 and other families without rotary positions: learned ones, or ALiBi."""

from __future__ import annotations

import transformers
from hypothesis import strategies as st

from tests.models.variants.draws import (
    ACTIVATIONS,
    ANY,
    EPS,
    FLAGS,
    MAX_LEN,
    Draw,
    Family,
    Fields,
    common_fields,
)


def gpt_fields(draw: Draw, head_dims: tuple[int, ...] = ANY) -> Fields:
    """GPT-2's keys."""
    fields, num_heads = common_fields(draw), draw(st.integers(1, 5))
    del fields["max_position_embeddings"], fields["num_hidden_layers"]
    return {
        **fields,
        "n_embd": num_heads * draw(st.sampled_from(head_dims)),
        "n_head": num_heads,
        "n_layer": draw(st.integers(1, 3)),
        "n_positions": MAX_LEN,
        "n_inner": draw(st.sampled_from([None, 7, 24])),
        "activation_function": draw(ACTIVATIONS),
        "layer_norm_epsilon": draw(EPS),
    }


def _gpt2(draw: Draw) -> Fields:
    return {
        **gpt_fields(draw),
        "scale_attn_weights": draw(FLAGS),
        "scale_attn_by_inverse_layer_idx": draw(FLAGS),
    }


def _bigcode(draw: Draw) -> Fields:
    return {**gpt_fields(draw), "multi_query": draw(FLAGS), "scale_attn_weights": draw(FLAGS)}


def _bloom(draw: Draw) -> Fields:
    fields, num_heads = common_fields(draw), draw(st.integers(1, 11))
    return {
        "vocab_size": fields["vocab_size"],
        "tie_word_embeddings": fields["tie_word_embeddings"],
        "hidden_size": num_heads * draw(st.sampled_from(ANY)),
        "n_head": num_heads,
        "n_layer": fields["num_hidden_layers"],
        "layer_norm_epsilon": draw(EPS),
        "apply_residual_connection_post_layernorm": draw(FLAGS),
    }


def _opt(draw: Draw) -> Fields:
    fields, num_heads = common_fields(draw), draw(st.integers(1, 5))
    hidden_size = num_heads * draw(st.sampled_from(ANY))
    return {
        **fields,
        "hidden_size": hidden_size,
        "num_attention_heads": num_heads,
        "ffn_dim": draw(st.integers(3, 30)),
        "word_embed_proj_dim": draw(st.sampled_from([hidden_size, 7])),
        "activation_function": draw(ACTIVATIONS),
        "do_layer_norm_before": draw(FLAGS),
        "enable_bias": draw(FLAGS),
        "layer_norm_elementwise_affine": draw(FLAGS),
        "_remove_final_layer_norm": draw(FLAGS),
    }


def _mpt(draw: Draw) -> Fields:
    fields, num_heads = common_fields(draw), draw(st.integers(1, 11))
    return {
        "vocab_size": fields["vocab_size"],
        "d_model": num_heads * draw(st.sampled_from(ANY)),
        "n_heads": num_heads,
        "n_layers": fields["num_hidden_layers"],
        "max_seq_len": MAX_LEN,
        "layer_norm_epsilon": draw(EPS),
        "attn_config": {
            "clip_qkv": draw(st.sampled_from([None, 0.3])),
            "softmax_scale": draw(st.sampled_from([None, 0.2])),
        },
    }


FAMILIES: dict[str, Family] = {
    "BloomForCausalLM": (transformers.BloomConfig, _bloom),
    "GPT2LMHeadModel": (transformers.GPT2Config, _gpt2),
    "GPTBigCodeForCausalLM": (transformers.GPTBigCodeConfig, _bigcode),
    "MptForCausalLM": (transformers.MptConfig, _mpt),
    "OPTForCausalLM": (transformers.OPTConfig, _opt),
}
