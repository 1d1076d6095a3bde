"""What the draws of all families have in common: sizes, rotary types, layer types.

Sizes are small and, where a family allows it, odd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from hypothesis import strategies as st
from transformers import PreTrainedConfig

Fields: TypeAlias = dict[str, Any]
Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]
Family: TypeAlias = tuple[type[PreTrainedConfig], Callable[[Draw], Fields]]

MAX_LEN = 64
FLAGS = st.booleans()
EPS = st.sampled_from([1e-6, 1e-5, 1e-2])
WINDOWS = st.sampled_from([None, 1, 2, 5, 16, 100])
ACTIVATIONS = st.sampled_from(
    ["silu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu2"]
)
THETAS = st.sampled_from([100.0, 1e4, 5e6])
EVEN, ANY = (4, 6, 10, 16), (5, 6, 7, 10)  # head sizes


def scales(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda value: round(value, 3))


def head_counts(draw: Draw) -> tuple[int, int]:
    """Query heads, KV heads."""
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return kv_heads * group, kv_heads


def common_fields(draw: Draw) -> Fields:
    return {
        "vocab_size": draw(st.integers(17, 90)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "tie_word_embeddings": draw(FLAGS),
        "max_position_embeddings": MAX_LEN,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


def rope_fields(draw: Draw, shares: tuple[float, ...] = (), *, scaled: bool = True) -> Fields:
    kinds = ["default", "linear", "llama3", "yarn", "dynamic"] if scaled else ["default"]
    if shares:
        kinds = kinds[:4]  # transformers stretches no single pair of values by its length
    kind = draw(st.sampled_from(kinds))
    params: Fields = {"rope_type": kind, "rope_theta": draw(THETAS)}
    if kind != "default":
        params["factor"] = draw(scales(1.0, 8.0))
    if kind == "llama3":
        params |= {"low_freq_factor": 1.0, "high_freq_factor": draw(scales(1.5, 5.0))}
    if kind in ("llama3", "yarn"):
        params["original_max_position_embeddings"] = draw(st.sampled_from([4, 16, 32]))
    if kind == "yarn":
        params |= {"beta_fast": draw(scales(4.0, 40.0)), "beta_slow": draw(scales(0.5, 2.0))}
        params |= draw(st.sampled_from([{}, {"attention_factor": 1.3}, {"truncate": False}]))
    if shares:
        params["partial_rotary_factor"] = draw(st.sampled_from(shares))
    return {"rope_parameters": params}


def rotary_fields(
    draw: Draw, head_dims: tuple[int, ...] = EVEN, *, eps: str = "rms_norm_eps"
) -> Fields:
    """Llama's keys, for classes that take the head size from the hidden size."""
    num_heads, num_kv_heads = head_counts(draw)
    return {
        **common_fields(draw),
        "hidden_size": num_heads * draw(st.sampled_from(head_dims)),
        "intermediate_size": draw(st.integers(3, 40)),
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "hidden_act": draw(ACTIVATIONS),
        eps: draw(EPS),
        **rope_fields(draw),
    }


def fields_with_head_dim(draw: Draw) -> Fields:
    """Of those that say the head size, the hidden size need not follow from it."""
    fields = rotary_fields(draw)
    return {
        **fields,
        "hidden_size": fields["num_attention_heads"] * draw(st.integers(3, 9)),
        "head_dim": draw(st.sampled_from(EVEN)),
    }


def without_groups(fields: Fields) -> Fields:
    """Without groups."""
    return {key: value for key, value in fields.items() if key != "num_key_value_heads"}


def drawn_layer_types(draw: Draw, num_layers: int) -> list[str]:
    kinds = st.sampled_from(["full_attention", "sliding_attention"])
    return [draw(kinds) for _ in range(num_layers)]
