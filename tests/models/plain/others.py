"""Families with graphs of their own in their hubs' layouts: which tensors there are, the logits.

``c`` is a config.json, with every key that the family reads.
"""

from __future__ import annotations

from torch import Tensor

from tests.models.plain.llama_like import Config, Shapes
from tests.models.plain.parts import (
    Tensors,
    alibi_slopes,
    attend,
    conv1d,
    gelu,
    heads,
    layer_norm,
    linear,
    rms_norm,
    rope,
    silu,
)

# --- ChatGLM2 and 3


def _glm_kv_heads(c: Config) -> int:
    shared = c["multi_query_attention"]
    return int(c["multi_query_group_num"] if shared else c["num_attention_heads"])


def chatglm_shapes(c: Config) -> Shapes:
    hidden, inner = c["hidden_size"], c["ffn_hidden_size"]
    wide = c["num_attention_heads"] * c["kv_channels"]
    rows = wide + 2 * _glm_kv_heads(c) * c["kv_channels"]
    table = (c["padded_vocab_size"], hidden)
    shapes: Shapes = {"transformer.embedding.word_embeddings.weight": table}
    shapes["transformer.output_layer.weight"] = table
    norms = ["final_layernorm"] if c["post_layer_norm"] else []
    for i in range(c["num_layers"]):
        prefix = f"transformer.encoder.layers.{i}"
        norms += [f"layers.{i}.input_layernorm", f"layers.{i}.post_attention_layernorm"]
        biased = c["add_bias_linear"]
        for name, shape, has_bias in (
            ("self_attention.query_key_value", (rows, hidden), biased or c["add_qkv_bias"]),
            ("self_attention.dense", (hidden, wide), biased),
            ("mlp.dense_h_to_4h", (2 * inner, hidden), biased),
            ("mlp.dense_4h_to_h", (hidden, inner), biased),
        ):
            shapes[f"{prefix}.{name}.weight"] = shape
            if has_bias:
                shapes[f"{prefix}.{name}.bias"] = shape[:1]
    for norm in norms:
        for kind in ("weight",) if c["rmsnorm"] else ("weight", "bias"):
            shapes[f"transformer.encoder.{norm}.{kind}"] = (hidden,)
    return shapes


def chatglm_logits(c: Config, t: Tensors, ids: Tensor) -> Tensor:
    head_dim, num_heads, kv_heads = c["kv_channels"], c["num_attention_heads"], _glm_kv_heads(c)
    make_norm, eps = rms_norm if c["rmsnorm"] else layer_norm, c["layernorm_epsilon"]
    keeps_normed = c["apply_residual_connection_post_layernorm"]
    x = t["transformer.embedding.word_embeddings.weight"][ids]
    for i in range(c["num_layers"]):
        prefix = f"transformer.encoder.layers.{i}"
        n = make_norm(t, f"{prefix}.input_layernorm", eps)(x)
        fused = heads(linear(t, f"{prefix}.self_attention.query_key_value", n), head_dim)
        if c["multi_query_attention"]:
            q, k, v = fused.split([num_heads, kv_heads, kv_heads], dim=1)
        else:
            q, k, v = fused[:, 0::3], fused[:, 1::3], fused[:, 2::3]
        q, k = (
            rope(one, theta=10000.0 * c["rope_ratio"], dims=head_dim // 2, adjacent=True)
            for one in (q, k)
        )
        attended = attend(q, k, v, scale=head_dim**-0.5)
        x = (n if keeps_normed else x) + linear(t, f"{prefix}.self_attention.dense", attended)
        n = make_norm(t, f"{prefix}.post_attention_layernorm", eps)(x)
        gate, up = linear(t, f"{prefix}.mlp.dense_h_to_4h", n).chunk(2, dim=-1)
        added = linear(t, f"{prefix}.mlp.dense_4h_to_h", silu(gate) * up)
        x = (n if keeps_normed else x) + added
    if c["post_layer_norm"]:
        x = make_norm(t, "transformer.encoder.final_layernorm", eps)(x)
    return x @ t["transformer.output_layer.weight"].T


# --- Jais


def jais_shapes(c: Config) -> Shapes:
    hidden, inner, table = c["n_embd"], c["n_inner"], (c["vocab_size"], c["n_embd"])
    shapes: Shapes = {"transformer.wte.weight": table}
    if not c.get("tie_word_embeddings", True):
        shapes["lm_head.weight"] = table
    if c["position_embedding_type"] == "learned":
        shapes["transformer.wpe.weight"] = (c["n_positions"], hidden)
    norms = ["ln_f"]
    for i in range(c["n_layer"]):
        norms += [f"h.{i}.ln_1", f"h.{i}.ln_2"]
        for name, shape in (
            ("attn.c_attn", (hidden, 3 * hidden)),
            ("attn.c_proj", (hidden, hidden)),
            ("mlp.c_fc", (hidden, inner)),
            *([("mlp.c_fc2", (hidden, inner))] if c["activation_function"] == "swiglu" else []),
            ("mlp.c_proj", (inner, hidden)),
        ):
            shapes[f"transformer.h.{i}.{name}.weight"] = shape
            shapes[f"transformer.h.{i}.{name}.bias"] = shape[1:]
    for norm in norms:
        shapes |= {f"transformer.{norm}.{kind}": (hidden,) for kind in ("weight", "bias")}
    return shapes


def jais_logits(c: Config, t: Tensors, ids: Tensor) -> Tensor:
    num_heads, eps = c["n_head"], c["layer_norm_epsilon"]
    head_dim = c["n_embd"] // num_heads
    if "mup_width_scale" in c:
        embedding_scale, by_dim = c["mup_embeddings_scale"], c["mup_scale_qk_dot_by_d"]
        output_scale = c["mup_output_alpha"] * c["mup_width_scale"]
    else:
        embedding_scale, by_dim = c["embeddings_scale"], c["scale_qk_dot_by_d"]
        output_scale = c["width_scale"]
    x, slopes = t["transformer.wte.weight"][ids], alibi_slopes(num_heads)
    if c["position_embedding_type"] == "learned":
        x, slopes = x + t["transformer.wpe.weight"][: len(ids)], None
    x = x * embedding_scale
    for i in range(c["n_layer"]):
        prefix = f"transformer.h.{i}"
        qkv = conv1d(t, f"{prefix}.attn.c_attn", layer_norm(t, f"{prefix}.ln_1", eps)(x))
        q, k, v = (heads(part, head_dim) for part in qkv.chunk(3, dim=-1))
        scale = 1 / head_dim if by_dim else head_dim**-0.5
        if c["scale_attn_by_inverse_layer_idx"]:
            scale = scale / (i + 1)
        x = x + conv1d(t, f"{prefix}.attn.c_proj", attend(q, k, v, scale=scale, slopes=slopes))
        n = layer_norm(t, f"{prefix}.ln_2", eps)(x)
        inner = conv1d(t, f"{prefix}.mlp.c_fc", n)
        if c["activation_function"] == "swiglu":
            inner = inner * silu(conv1d(t, f"{prefix}.mlp.c_fc2", n))
        else:
            inner = gelu(inner)
        x = x + conv1d(t, f"{prefix}.mlp.c_proj", inner)
    head = t.get("lm_head.weight", t["transformer.wte.weight"])
    return layer_norm(t, "transformer.ln_f", eps)(x) @ head.T * output_scale


# --- MPT


def _mpt_kv_heads(c: Config) -> int:
    kinds = {"multihead_attention": c["n_heads"], "multiquery_attention": 1}
    attention = c["attn_config"]
    return int(kinds.get(attention["attn_type"], attention.get("kv_n_heads")))


def mpt_shapes(c: Config) -> Shapes:
    hidden, inner = c["d_model"], int(c["expansion_ratio"] * c["d_model"])
    kv_size = _mpt_kv_heads(c) * (hidden // c["n_heads"])
    rows, attention = hidden + 2 * kv_size, c["attn_config"]
    shapes: Shapes = {"transformer.wte.weight": (c["vocab_size"], hidden)}
    parts = {"transformer.norm_f": (hidden,)}
    for i in range(c["n_layers"]):
        prefix = f"transformer.blocks.{i}"
        parts |= {f"{prefix}.norm_1": (hidden,), f"{prefix}.norm_2": (hidden,)}
        parts |= {
            f"{prefix}.attn.Wqkv": (rows, hidden),
            f"{prefix}.attn.out_proj": (hidden, hidden),
        }
        parts |= {f"{prefix}.ffn.up_proj": (inner, hidden)}
        parts |= {f"{prefix}.ffn.down_proj": (hidden, inner)}
        if attention["qk_ln"]:
            parts |= {f"{prefix}.attn.q_ln": (hidden,), f"{prefix}.attn.k_ln": (kv_size,)}
    for name, shape in parts.items():
        shapes[f"{name}.weight"] = shape
        if not c["no_bias"]:
            shapes[f"{name}.bias"] = shape[:1]
    if c["learned_pos_emb"] and not attention["alibi"]:
        shapes["transformer.wpe.weight"] = (c["max_seq_len"], hidden)
    return shapes


def mpt_logits(c: Config, t: Tensors, ids: Tensor) -> Tensor:
    num_heads, kv_heads, attention = c["n_heads"], _mpt_kv_heads(c), c["attn_config"]
    head_dim, eps = c["d_model"] // num_heads, 1e-5
    slopes = alibi_slopes(num_heads, attention["alibi_bias_max"]) if attention["alibi"] else None
    x = t["transformer.wte.weight"][ids]
    if "transformer.wpe.weight" in t:
        x = x + t["transformer.wpe.weight"][: len(ids)]
    for i in range(c["n_layers"]):
        prefix = f"transformer.blocks.{i}"
        qkv = linear(t, f"{prefix}.attn.Wqkv", layer_norm(t, f"{prefix}.norm_1", eps)(x))
        if attention["clip_qkv"] is not None:
            qkv = qkv.clamp(-attention["clip_qkv"], attention["clip_qkv"])
        q, k, v = qkv.split([size * head_dim for size in (num_heads, kv_heads, kv_heads)], dim=-1)
        if attention["qk_ln"]:
            q, k = (layer_norm(t, f"{prefix}.attn.{n}_ln", eps)(y) for n, y in (("q", q), ("k", k)))
        q, k, v = (heads(part, head_dim) for part in (q, k, v))
        attended = attend(
            q, k, v, scale=attention["softmax_scale"] or head_dim**-0.5, slopes=slopes
        )
        x = x + linear(t, f"{prefix}.attn.out_proj", attended)
        n = layer_norm(t, f"{prefix}.norm_2", eps)(x)
        x = x + linear(t, f"{prefix}.ffn.down_proj", gelu(linear(t, f"{prefix}.ffn.up_proj", n)))
    logits = layer_norm(t, "transformer.norm_f", eps)(x) @ t["transformer.wte.weight"].T
    return logits * (c["logit_scale"] or 1.0)


# --- OLMo in its first layout


def _olmo_width(c: Config) -> int:
    return int(c["mlp_hidden_size"] or c["mlp_ratio"] * c["d_model"])


def olmo_shapes(c: Config) -> Shapes:
    hidden, width, root = c["d_model"], _olmo_width(c), "model.transformer"
    kv_size = (c["n_kv_heads"] or c["n_heads"]) * (hidden // c["n_heads"])
    table = (c["embedding_size"] or c["vocab_size"], hidden)
    shapes: Shapes = {f"{root}.wte.weight": table}
    if not c["weight_tying"]:
        shapes[f"{root}.ff_out.weight"] = table
    if not c["rope"]:
        shapes[f"{root}.wpe.weight"] = (c["max_sequence_length"], hidden)
    linears, norms = {}, {f"{root}.ln_f": (hidden,)}
    for i in range(c["n_layers"]):
        prefix = f"{root}.blocks.{i}"
        linears[f"{prefix}.att_proj"] = (hidden + 2 * kv_size, hidden)
        linears[f"{prefix}.attn_out"] = (hidden, hidden)
        linears[f"{prefix}.ff_proj"] = (width, hidden)
        linears[f"{prefix}.ff_out"] = (hidden, width // 2)
        norms |= {f"{prefix}.attn_norm": (hidden,), f"{prefix}.ff_norm": (hidden,)}
    for parts, has_bias in ((linears, c["include_bias"]), (norms, c["bias_for_layer_norm"])):
        if parts is norms and not c["layer_norm_with_affine"]:
            continue
        for name, shape in parts.items():
            shapes[f"{name}.weight"] = shape
            if has_bias:
                shapes[f"{name}.bias"] = shape[:1]
    return shapes


def olmo_logits(c: Config, t: Tensors, ids: Tensor) -> Tensor:
    num_heads, kv_heads, root = c["n_heads"], c["n_kv_heads"] or c["n_heads"], "model.transformer"
    head_dim, eps = c["d_model"] // num_heads, 1e-5
    x = t[f"{root}.wte.weight"][ids]
    if not c["rope"]:
        x = x + t[f"{root}.wpe.weight"][: len(ids)]
    for i in range(c["n_layers"]):
        prefix = f"{root}.blocks.{i}"
        qkv = linear(t, f"{prefix}.att_proj", layer_norm(t, f"{prefix}.attn_norm", eps)(x))
        if c["clip_qkv"] is not None:
            qkv = qkv.clamp(-c["clip_qkv"], c["clip_qkv"])
        q, k, v = heads(qkv, head_dim).split([num_heads, kv_heads, kv_heads], dim=1)
        if c["rope"]:
            q, k = rope(q, theta=10000.0), rope(k, theta=10000.0)
        x = x + linear(t, f"{prefix}.attn_out", attend(q, k, v, scale=head_dim**-0.5))
        n = layer_norm(t, f"{prefix}.ff_norm", eps)(x)
        up, gate = linear(t, f"{prefix}.ff_proj", n).chunk(2, dim=-1)
        x = x + linear(t, f"{prefix}.ff_out", silu(gate) * up)
    head = t[f"{root}.wte.weight" if c["weight_tying"] else f"{root}.ff_out.weight"]
    logits = layer_norm(t, f"{root}.ln_f", eps)(x) @ head.T
    return logits * c["d_model"] ** -0.5 if c["scale_logits"] else logits
