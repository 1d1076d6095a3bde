"""Random variants of the older families in their hubs' layouts, against plain float64 arithmetic.

The goldens hold one variant of each; here sizes, biases, norms, scales, positions and missing parts
are drawn.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from quire.models.loading import build_model
from tests.fakes.batches import FakeRows
from tests.fakes.engines import engine_args
from tests.models.plain import llama_like, others
from tests.models.plain.llama_like import Config, Shapes
from tests.models.plain.parts import Tensors

_TOLERANCE = 1e-5  # of the largest logit
_LENGTH = 21
_variants = settings(max_examples=12, deadline=None)

Draw = Callable[[st.SearchStrategy[Any]], Any]


def _check(
    config: Config,
    shapes: Callable[[Config], Shapes],
    logits: Callable[[Config, Tensors, Tensor], Tensor],
    *,
    max_model_len: int | None = None,
) -> None:
    """Save a random checkpoint, load it, compare the logits of a text computed in two steps."""
    generator = torch.Generator().manual_seed(5)
    tensors = {name: _random(shape, generator) for name, shape in shapes(config).items()}
    with tempfile.TemporaryDirectory() as folder:
        _save(Path(folder), config, tensors)
        args = engine_args(Path(folder), max_model_len=max_model_len)
        loaded = build_model(args.create_engine_config())
    assert loaded.report.unused == ()
    model = loaded.model
    ids = torch.randint(model.spec.embedding.vocab_size, (_LENGTH,), generator=generator)
    rows = FakeRows(model.kv_layout, [ids.tolist()])
    found = []
    for step in (8, _LENGTH - 8):
        batch, _ = rows.batch({0: step})
        with torch.inference_mode():
            found.append(model.logits(model.forward(batch)))
    expected = logits(config, {name: one.double() for name, one in tensors.items()}, ids)
    difference = (torch.cat(found) - expected).abs().max() / expected.abs().max()
    assert difference < _TOLERANCE


def _random(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Loud enough that no part can be lost unseen."""
    values = torch.randn(shape, generator=generator)
    return 1 + 0.3 * values if len(shape) == 1 else values * max(shape[1], 4) ** -0.5


def _save(folder: Path, config: Config, tensors: dict[str, Tensor]) -> None:
    """Half of the families' repositories hold pickles, and so do these."""
    (folder / "config.json").write_text(json.dumps(config))
    if config["vocab_size" if "vocab_size" in config else "padded_vocab_size"] % 2:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors")


_flags = st.booleans()
_eps = st.sampled_from([1e-6, 1e-5, 1e-2])
_vocab_sizes = st.integers(17, 60)


def _heads(draw: Draw, head_dims: tuple[int, ...] = (4, 6, 10)) -> tuple[int, int, int]:
    """Query heads, KV heads, head size."""
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return kv_heads * group, kv_heads, draw(st.sampled_from(head_dims))


def _llama_keys(draw: Draw, architecture: str) -> Config:
    num_heads, _, head_dim = _heads(draw)
    return {
        "architectures": [architecture],
        "vocab_size": draw(_vocab_sizes),
        "hidden_size": num_heads * head_dim,
        "intermediate_size": draw(st.integers(5, 40)),
        "num_hidden_layers": draw(st.integers(1, 2)),
        "num_attention_heads": num_heads,
        "rms_norm_eps": draw(_eps),
        "max_position_embeddings": 64,
        "tie_word_embeddings": draw(_flags),
    }


@st.composite
def _llamas(draw: Draw, architecture: str) -> Config:
    config = _llama_keys(draw, architecture)
    kv_heads = draw(st.sampled_from([1, config["num_attention_heads"]]))
    config |= {"num_key_value_heads": kv_heads, "rope_theta": draw(st.sampled_from([100.0, 5e6]))}
    if draw(_flags):
        config["rope_scaling"] = {"type": "linear", "factor": 2.5}
    return config


@st.composite
def _internlm(draw: Draw) -> Config:
    config = _llama_keys(draw, "InternLMForCausalLM")
    config["bias"] = draw(_flags)
    kind = draw(st.sampled_from(["dynamic", "origin", None]))
    if kind is not None:
        config["rotary"] = {"base": draw(st.sampled_from([10000, 300])), "type": kind}
    return config


@st.composite
def _decilm(draw: Draw) -> Config:
    config = _llama_keys(draw, "DeciLMForCausalLM")
    num_heads = config["num_attention_heads"]
    divisors = [count for count in range(1, num_heads + 1) if num_heads % count == 0]
    layers = draw(st.integers(1, 3))
    config["num_hidden_layers"] = layers
    counts = st.lists(st.sampled_from(divisors), min_size=layers, max_size=layers)
    config["num_key_value_heads_per_layer"] = draw(counts)
    return config


@st.composite
def _nas_blocks(draw: Draw, groups: list[int]) -> Config:
    no_attention, no_ffn = draw(st.sampled_from([(0, 0), (0, 0), (1, 0), (0, 1), (1, 1)]))
    ffn: Config = {"no_op": bool(no_ffn), "replace_with_linear": False}
    if draw(_flags):
        ffn["intermediate_size"] = None if no_ffn else draw(st.integers(5, 40))
    else:
        ffn["ffn_mult"] = None if no_ffn else draw(st.sampled_from([0.5, 1.3125, 40.0]))
    group = None if no_attention else draw(st.sampled_from(groups))
    return {"attention": {"n_heads_in_group": group, "no_op": bool(no_attention)}, "ffn": ffn}


@st.composite
def _nas(draw: Draw) -> Config:
    config = _llama_keys(draw, "DeciLMForCausalLM")
    num_heads = config["num_attention_heads"]
    groups = [size for size in range(1, num_heads + 1) if num_heads % size == 0]
    whole = {"attention": {"n_heads_in_group": groups[-1], "no_op": False}}
    whole["ffn"] = {"ffn_mult": 1.0, "no_op": False}
    blocks = [whole, *draw(st.lists(_nas_blocks(groups), min_size=1, max_size=3))]
    absent = {"intermediate_size": None, "num_key_value_heads": None, "model_type": "nemotron-nas"}
    return {
        **config,
        **absent,
        "block_configs": blocks,
        "num_hidden_layers": len(blocks),
        "attention_bias": draw(_flags),
    }


@_variants
@given(
    st.one_of(
        *map(_llamas, ("AquilaForCausalLM", "XverseForCausalLM", "YiForCausalLM")),
        _llamas("OrionForCausalLM"),
    )
)
def test_llama_under_other_names(config: Config) -> None:
    _check(config, llama_like.llama_shapes, llama_like.llama_logits)


@_variants
@given(_internlm())
def test_internlm(config: Config) -> None:
    _check(config, llama_like.llama_shapes, llama_like.llama_logits)


@_variants
@given(st.one_of(_decilm(), _nas()))
def test_decilm(config: Config) -> None:
    _check(config, llama_like.llama_shapes, llama_like.llama_logits)


@st.composite
def _baichuan(draw: Draw) -> Config:
    config = _llama_keys(draw, "BaichuanForCausalLM")
    config["tie_word_embeddings"] = False
    if draw(_flags):
        del config["max_position_embeddings"]
        config["model_max_length"] = 64
    if draw(_flags):
        config["z_loss_weight"] = 0
    return config


@_variants
@given(_baichuan())
def test_baichuan(config: Config) -> None:
    _check(config, llama_like.baichuan_shapes, llama_like.baichuan_logits)


@st.composite
def _internlm2(draw: Draw) -> Config:
    num_heads, kv_heads, head_dim = _heads(draw)
    config = _llama_keys(draw, "InternLM2ForCausalLM")
    scaling = draw(st.sampled_from([None, "dynamic", "linear"]))
    return {
        **config,
        "hidden_size": num_heads * head_dim,
        "num_attention_heads": num_heads,
        "num_key_value_heads": kv_heads,
        "rope_theta": draw(st.sampled_from([100.0, 1e6])),
        "rope_scaling": None if scaling is None else {"type": scaling, "factor": 2.0},
        "bias": draw(_flags),
        "tie_word_embeddings": False,
    }


@_variants
@given(_internlm2())
def test_internlm2(config: Config) -> None:
    _check(config, llama_like.internlm2_shapes, llama_like.internlm2_logits)


_QWEN_NAMES = {
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "intermediate_size": "ffn_hidden_size",
    "max_position_embeddings": "n_positions",
}


@st.composite
def _qwen(draw: Draw) -> Config:
    """The trained length is below or above the text's."""
    num_heads, _, head_dim = _heads(draw, (8, 12))
    vocab_size = draw(_vocab_sizes)
    sizes = {
        "hidden_size": draw(st.sampled_from([24, num_heads * head_dim])),
        "num_attention_heads": num_heads,
        "num_hidden_layers": draw(st.integers(1, 2)),
        "intermediate_size": 2 * draw(st.integers(5, 40)),
        "max_position_embeddings": 64,
    }
    if draw(_flags):
        sizes = {_QWEN_NAMES[name]: value for name, value in sizes.items()}
        sizes |= {"padded_vocab_size": vocab_size}
    return {
        "architectures": ["QWenLMHeadModel"],
        "vocab_size": vocab_size - 3 if "padded_vocab_size" in sizes else vocab_size,
        **sizes,
        "kv_channels": head_dim,
        "seq_length": draw(st.sampled_from([5, 10, 11, 64])),
        "layer_norm_epsilon": draw(_eps),
        "rotary_emb_base": draw(st.sampled_from([10000, 300])),
        "rotary_pct": draw(st.sampled_from([1.0, 0.5])),
        "no_bias": draw(_flags),
        "use_dynamic_ntk": draw(_flags),
        "use_logn_attn": draw(_flags),
        "tie_word_embeddings": False,
    }


@_variants
@given(_qwen())
def test_qwen(config: Config) -> None:
    """Within and beyond the trained length, with either generation's keys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUIRE_ALLOW_LONG_MAX_MODEL_LEN", "1")
        _check(config, llama_like.qwen_shapes, llama_like.qwen_logits, max_model_len=_LENGTH)


@st.composite
def _chatglm(draw: Draw) -> Config:
    num_heads, kv_heads, head_dim = _heads(draw, (4, 8, 12))
    return {
        "architectures": [
            draw(st.sampled_from(["ChatGLMModel", "ChatGLMForConditionalGeneration"]))
        ],
        "padded_vocab_size": draw(_vocab_sizes),
        "hidden_size": draw(st.sampled_from([20, num_heads * head_dim])),
        "num_layers": draw(st.integers(1, 2)),
        "num_attention_heads": num_heads,
        "kv_channels": head_dim,
        "multi_query_attention": draw(_flags),
        "multi_query_group_num": kv_heads,
        "ffn_hidden_size": draw(st.integers(5, 40)),
        "layernorm_epsilon": draw(_eps),
        "rmsnorm": draw(_flags),
        "post_layer_norm": draw(_flags),
        "add_bias_linear": draw(_flags),
        "add_qkv_bias": draw(_flags),
        "apply_residual_connection_post_layernorm": draw(_flags),
        "rope_ratio": draw(st.sampled_from([1, 50])),
        "seq_length": 64,
        "tie_word_embeddings": False,
    }


@_variants
@given(_chatglm())
def test_chatglm(config: Config) -> None:
    _check(config, others.chatglm_shapes, others.chatglm_logits)


@st.composite
def _jais(draw: Draw) -> Config:
    num_heads, head_dim = draw(st.integers(1, 6)), draw(st.sampled_from([3, 4, 8]))
    first, by_dim = draw(_flags), draw(_flags)
    scales: Config = {"mup_width_scale": 0.5, "mup_output_alpha": 2.2, "mup_embeddings_scale": 9.1}
    scales["mup_scale_qk_dot_by_d"] = by_dim
    if first:
        scales = {"width_scale": 0.6, "embeddings_scale": 14.6, "scale_qk_dot_by_d": by_dim}
    config = {
        "architectures": ["JAISLMHeadModel"],
        "activation_function": draw(st.sampled_from(["swiglu", "swiglu", "gelu"])),
        "scale_attn_by_inverse_layer_idx": draw(_flags),
        "vocab_size": draw(_vocab_sizes),
        "n_embd": num_heads * head_dim,
        "n_head": num_heads,
        "n_layer": draw(st.integers(1, 2)),
        "n_inner": draw(st.integers(5, 40)),
        "n_positions": 64,
        "layer_norm_epsilon": draw(_eps),
        "position_embedding_type": draw(st.sampled_from(["alibi", "learned"])),
        **scales,
    }
    return {**config, "tie_word_embeddings": False} if draw(_flags) else config


@_variants
@given(_jais())
def test_jais(config: Config) -> None:
    _check(config, others.jais_shapes, others.jais_logits)


@st.composite
def _mpt(draw: Draw) -> Config:
    num_heads, kv_heads, head_dim = _heads(draw, (3, 4, 8))
    kinds = ["multihead_attention", "multiquery_attention", "grouped_query_attention"]
    attention = {
        "attn_type": draw(st.sampled_from(kinds)),
        "kv_n_heads": kv_heads,
        "alibi": draw(_flags),
        "alibi_bias_max": draw(st.sampled_from([8, 16])),
        "clip_qkv": draw(st.sampled_from([None, 0.5, 6])),
        "qk_ln": draw(_flags),
        "softmax_scale": draw(st.sampled_from([None, 0.3])),
    }
    return {
        "architectures": ["MPTForCausalLM"],
        "d_model": num_heads * head_dim,
        "n_heads": num_heads,
        "n_layers": draw(st.integers(1, 2)),
        "expansion_ratio": draw(st.sampled_from([4, 2])),
        "vocab_size": draw(_vocab_sizes),
        "max_seq_len": 64,
        "no_bias": draw(_flags),
        "learned_pos_emb": draw(_flags),
        "logit_scale": draw(st.sampled_from([None, 0.7])),
        "attn_config": attention,
    }


@_variants
@given(_mpt())
def test_mpt(config: Config) -> None:
    _check(config, others.mpt_shapes, others.mpt_logits)


@st.composite
def _olmo(draw: Draw) -> Config:
    num_heads, kv_heads, head_dim = _heads(draw)
    vocab_size = draw(_vocab_sizes)
    return {
        "architectures": ["OLMoForCausalLM"],
        "d_model": num_heads * head_dim,
        "n_heads": num_heads,
        "n_kv_heads": draw(st.sampled_from([None, kv_heads])),
        "n_layers": draw(st.integers(1, 2)),
        "mlp_ratio": 4,
        "mlp_hidden_size": draw(st.sampled_from([None, 22])),
        "vocab_size": vocab_size,
        "embedding_size": draw(st.sampled_from([None, vocab_size + 7])),
        "max_sequence_length": 64,
        "weight_tying": draw(_flags),
        "clip_qkv": draw(st.sampled_from([None, 0.5])),
        "rope": draw(_flags),
        "layer_norm_with_affine": draw(_flags),
        "bias_for_layer_norm": draw(_flags),
        "include_bias": draw(_flags),
        "scale_logits": draw(_flags),
    }


@_variants
@given(_olmo())
def test_olmo(config: Config) -> None:
    _check(config, others.olmo_shapes, others.olmo_logits)
