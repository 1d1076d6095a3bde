"""Families with Llama's graph in layouts of their own: which tensors there are, and the logits.

``c`` is a config.json, with every key that the family reads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.models.plain.parts import (
    Function,
    Tensors,
    alibi_slopes,
    attend,
    heads,
    layer_norm,
    linear,
    rms_norm,
    rope,
    silu,
)

Config = dict[str, Any]
Shapes = dict[str, tuple[int, ...]]


def _mlp(t: Tensors, gate: str, up: str, down: str) -> Function:
    return lambda n: linear(t, down, silu(linear(t, gate, n)) * linear(t, up, n))


def _around(c: Config) -> Shapes:
    """Embedding, final norm and head under Llama's names."""
    table = (c["vocab_size"], c["hidden_size"])
    shapes: Shapes = {"model.embed_tokens.weight": table, "model.norm.weight": table[1:]}
    return shapes if c.get("tie_word_embeddings") else {**shapes, "lm_head.weight": table}


def _llama_mlp_shapes(prefix: str, hidden: int, inner: int) -> Shapes:
    return {
        f"{prefix}.gate_proj.weight": (inner, hidden),
        f"{prefix}.up_proj.weight": (inner, hidden),
        f"{prefix}.down_proj.weight": (hidden, inner),
    }


def _llama_mlp(t: Tensors, prefix: str) -> Function:
    return _mlp(t, f"{prefix}.gate_proj", f"{prefix}.up_proj", f"{prefix}.down_proj")


def _head(c: Config, t: Tensors) -> Tensor:
    return t["model.embed_tokens.weight" if c.get("tie_word_embeddings") else "lm_head.weight"]


# --- Llama's own names: InternLM, Orion, Yi, Xverse, Aquila, the first DeciLM, Nemotron-NAS


def _blocks(c: Config) -> list[tuple[int | None, int | None]]:
    """Per layer KV heads and MLP width; None: the part is missing."""
    num_heads, plain = c["num_attention_heads"], c.get("num_key_value_heads")
    if "block_configs" not in c:
        default = [plain or num_heads] * c["num_hidden_layers"]
        counts = c.get("num_key_value_heads_per_layer", default)
        return [(count, c["intermediate_size"]) for count in counts]
    found = []
    for block in c["block_configs"]:
        attention, ffn = block["attention"], block["ffn"]
        width = ffn.get("intermediate_size")
        if width is None and not ffn["no_op"]:
            width = math.ceil(int(2 * ffn["ffn_mult"] * c["hidden_size"] / 3) / 256) * 256
        found.append(
            (
                None if attention["no_op"] else num_heads // attention["n_heads_in_group"],
                None if ffn["no_op"] else width,
            )
        )
    return found


def _norm_names(c: Config) -> tuple[str, str]:
    is_yi = c["architectures"] == ["YiForCausalLM"]
    return ("ln1", "ln2") if is_yi else ("input_layernorm", "post_attention_layernorm")


def llama_shapes(c: Config) -> Shapes:
    hidden, shapes = c["hidden_size"], _around(c)
    head_dim = hidden // c["num_attention_heads"]
    for i, (kv_heads, width) in enumerate(_blocks(c)):
        prefix = f"model.layers.{i}"
        if kv_heads is not None:
            shapes[f"{prefix}.{_norm_names(c)[0]}.weight"] = (hidden,)
            rows = {"q": hidden, "k": kv_heads * head_dim, "v": kv_heads * head_dim, "o": hidden}
            for part, size in rows.items():
                shapes[f"{prefix}.self_attn.{part}_proj.weight"] = (size, hidden)
                if c.get("bias") or c.get("attention_bias"):
                    shapes[f"{prefix}.self_attn.{part}_proj.bias"] = (size,)
        if width is not None:
            shapes[f"{prefix}.{_norm_names(c)[1]}.weight"] = (hidden,)
            shapes |= _llama_mlp_shapes(f"{prefix}.mlp", hidden, width)
    if c["architectures"] == ["OrionForCausalLM"]:
        norms = [name for name in shapes if "norm" in name]
        shapes |= {name.replace("weight", "bias"): (hidden,) for name in norms}
    return shapes


def llama_logits(c: Config, t: Tensors, ids: Tensor) -> Tensor:
    head_dim = c["hidden_size"] // c["num_attention_heads"]
    make_norm = layer_norm if c["architectures"] == ["OrionForCausalLM"] else rms_norm
    theta = c.get("rotary", {}).get("base") or c.get("rope_theta", 10000.0)
    factor = (c.get("rope_scaling") or {}).get("factor", 1.0)  # linear only
    x = t["model.embed_tokens.weight"][ids]
    for i, (kv_heads, width) in enumerate(_blocks(c)):
        prefix = f"model.layers.{i}"
        first, second = (
            make_norm(t, f"{prefix}.{name}", c["rms_norm_eps"]) for name in _norm_names(c)
        )
        if kv_heads is not None:
            n = first(x)
            q, k, v = (heads(linear(t, f"{prefix}.self_attn.{p}_proj", n), head_dim) for p in "qkv")
            q, k = (rope(one, theta=theta, position_scale=1 / factor) for one in (q, k))
            attended = attend(q, k, v, scale=head_dim**-0.5)
            x = x + linear(t, f"{prefix}.self_attn.o_proj", attended)
        if width is not None:
            x = x + _llama_mlp(t, f"{prefix}.mlp")(second(x))
    return make_norm(t, "model.norm", c["rms_norm_eps"])(x) @ _head(c, t).T


# --- Baichuan


def baichuan_shapes(c: Config) -> Shapes:
    hidden, shapes = c["hidden_size"], _around(c)
    for i in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{i}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}.{norm}.weight"] = (hidden,)
        shapes[f"{prefix}.self_attn.W_pack.weight"] = (3 * hidden, hidden)
        shapes[f"{prefix}.self_attn.o_proj.weight"] = (hidden, hidden)
        shapes |= _llama_mlp_shapes(f"{prefix}.mlp", hidden, c["intermediate_size"])
    return shapes


def baichuan_logits(c: Config, t: Tensors, ids: Tensor) -> Tensor:
    num_heads, hidden, eps = c["num_attention_heads"], c["hidden_size"], c["rms_norm_eps"]
    is_rotary = "max_position_embeddings" in c
    slopes = None if is_rotary else alibi_slopes(num_heads)
    x = t["model.embed_tokens.weight"][ids]
    for i in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{i}"
        n = rms_norm(t, f"{prefix}.input_layernorm", eps)(x)
        qkv = linear(t, f"{prefix}.self_attn.W_pack", n).split(hidden, dim=-1)
        q, k, v = (heads(part, hidden // num_heads) for part in qkv)
        if is_rotary:
            q, k = rope(q, theta=10000.0), rope(k, theta=10000.0)
        attended = attend(q, k, v, scale=(hidden // num_heads) ** -0.5, slopes=slopes)
        x = x + linear(t, f"{prefix}.self_attn.o_proj", attended)
        n = rms_norm(t, f"{prefix}.post_attention_layernorm", eps)(x)
        x = x + _llama_mlp(t, f"{prefix}.mlp")(n)
    head = _head(c, t)
    if "z_loss_weight" in c:
        head = head / head.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return rms_norm(t, "model.norm", eps)(x) @ head.T


# --- InternLM2


def internlm2_shapes(c: Config) -> Shapes:
    hidden, inner = c["hidden_size"], c["intermediate_size"]
    head_dim = hidden // c["num_attention_heads"]
    rows = (c["num_attention_heads"] + 2 * c["num_key_value_heads"]) * head_dim
    table = (c["vocab_size"], hidden)
    shapes: Shapes = {"model.tok_embeddings.weight": table, "output.weight": table}
    shapes["model.norm.weight"] = (hidden,)
    for i in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{i}"
        for norm in ("attention_norm", "ffn_norm"):
            shapes[f"{prefix}.{norm}.weight"] = (hidden,)
        for name, size in (("wqkv", rows), ("wo", hidden)):
            shapes[f"{prefix}.attention.{name}.weight"] = (size, hidden)
            if c["bias"]:
                shapes[f"{prefix}.attention.{name}.bias"] = (size,)
        for name, shape in (("w1", (inner, hidden)), ("w3", (inner, hidden))):
            shapes[f"{prefix}.feed_forward.{name}.weight"] = shape
        shapes[f"{prefix}.feed_forward.w2.weight"] = (hidden, inner)
    return shapes


def internlm2_logits(c: Config, t: Tensors, ids: Tensor) -> Tensor:
    num_heads, num_kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
    group, head_dim = num_heads // num_kv_heads, c["hidden_size"] // num_heads
    scaling, eps = c.get("rope_scaling") or {"type": "none"}, c["rms_norm_eps"]
    position_scale = 1 / scaling["factor"] if scaling["type"] == "linear" else 1.0
    x = t["model.tok_embeddings.weight"][ids]
    for i in range(c["num_hidden_layers"]):
        prefix = f"model.layers.{i}"
        n = rms_norm(t, f"{prefix}.attention_norm", eps)(x)
        blocks = heads(linear(t, f"{prefix}.attention.wqkv", n), head_dim)
        q_blocks = [(h // group) * (group + 2) + h % group for h in range(num_heads)]
        k_blocks = [j * (group + 2) + group for j in range(num_kv_heads)]
        q, k = (
            rope(blocks[:, chosen], theta=c["rope_theta"], position_scale=position_scale)
            for chosen in (q_blocks, k_blocks)
        )
        v = blocks[:, [block + 1 for block in k_blocks]]
        x = x + linear(t, f"{prefix}.attention.wo", attend(q, k, v, scale=head_dim**-0.5))
        w1, w3, w2 = (f"{prefix}.feed_forward.{name}" for name in ("w1", "w3", "w2"))
        x = x + _mlp(t, w1, w3, w2)(rms_norm(t, f"{prefix}.ffn_norm", eps)(x))
    return rms_norm(t, "model.norm", eps)(x) @ t["output.weight"].T


# --- Qwen


def _qwen_sizes(c: Config) -> tuple[int, int, int, int, int]:
    """Vocabulary, hidden size, heads, layers, MLP width, under either spelling."""
    vocab_size = c.get("padded_vocab_size", c.get("vocab_size"))
    sizes = [
        c[new] if new in c else c[old]
        for new, old in (
            ("hidden_size", "n_embd"),
            ("num_attention_heads", "n_head"),
            ("num_hidden_layers", "n_layer"),
            ("intermediate_size", "ffn_hidden_size"),
        )
    ]
    return vocab_size, sizes[0], sizes[1], sizes[2], sizes[3] // 2


def qwen_shapes(c: Config) -> Shapes:
    vocab_size, hidden, num_heads, num_layers, inner = _qwen_sizes(c)
    wide = num_heads * c["kv_channels"]
    shapes: Shapes = {
        f"{name}.weight": (vocab_size, hidden) for name in ("transformer.wte", "lm_head")
    }
    shapes["transformer.ln_f.weight"] = (hidden,)
    for i in range(num_layers):
        prefix = f"transformer.h.{i}"
        shapes |= {f"{prefix}.{norm}.weight": (hidden,) for norm in ("ln_1", "ln_2")}
        shapes[f"{prefix}.attn.c_attn.weight"] = (3 * wide, hidden)
        shapes[f"{prefix}.attn.c_attn.bias"] = (3 * wide,)
        others = {"attn.c_proj": (hidden, wide), "mlp.w1": (inner, hidden)}
        others |= {"mlp.w2": (inner, hidden), "mlp.c_proj": (hidden, inner)}
        for name, shape in others.items():
            shapes[f"{prefix}.{name}.weight"] = shape
            if not c["no_bias"]:
                shapes[f"{prefix}.{name}.bias"] = shape[:1]
    return shapes


def qwen_logits(c: Config, t: Tensors, ids: Tensor) -> Tensor:
    _, _, _, num_layers, _ = _qwen_sizes(c)
    head_dim, trained, eps = c["kv_channels"], c["seq_length"], c["layer_norm_epsilon"]
    dims = int(head_dim * c["rotary_pct"])
    theta = c["rotary_emb_base"]
    if c["use_dynamic_ntk"] and len(ids) > trained:
        alpha = 2 ** math.ceil(math.log2(len(ids) / trained) + 1) - 1
        theta = theta * alpha ** (dims / (dims - 2))
    positions = torch.arange(1, len(ids) + 1, dtype=torch.float64)
    logn = (positions.log() / math.log(trained)).clamp(min=1)[:, None, None]
    x = t["transformer.wte.weight"][ids]
    for i in range(num_layers):
        prefix = f"transformer.h.{i}"
        qkv = linear(t, f"{prefix}.attn.c_attn", rms_norm(t, f"{prefix}.ln_1", eps)(x))
        q, k, v = (heads(part, head_dim) for part in qkv.chunk(3, dim=-1))
        q, k = (rope(one, theta=theta, dims=dims) for one in (q, k))
        q = q * logn if c["use_logn_attn"] else q
        x = x + linear(t, f"{prefix}.attn.c_proj", attend(q, k, v, scale=head_dim**-0.5))
        gate, up, down = (f"{prefix}.mlp.{name}" for name in ("w2", "w1", "c_proj"))
        x = x + _mlp(t, gate, up, down)(rms_norm(t, f"{prefix}.ln_2", eps)(x))
    return rms_norm(t, "transformer.ln_f", eps)(x) @ t["lm_head.weight"].T
