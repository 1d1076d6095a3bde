"""Multi-head latent attention, absorbed: all heads attend to one latent vector per token.

A head's keys and values are products of the latent with two matrices (``kv_up``). Neither is ever
computed: a query is multiplied by its head's key matrix instead, and the weighted sum of latents
that attention returns by its value matrix. So the cache holds, per token, the normed latent and one
rotated key, and a backend sees one KV head whose values are the first part of its keys.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from quire.attention.backend import AttentionBackend
from quire.kernels.cpu.few_sizes import in_few_sizes
from quire.kernels.reference.attention import write_keys
from quire.layers.forward_pass import ForwardPass
from quire.layers.linear import Linear
from quire.layers.mla_spec import MLASpec
from quire.layers.norm import Norm, RMSNorm
from quire.layers.normed import Map, normed_product
from quire.layers.rope import build_rotation
from quire.weights.reader import TensorReader

Inputs = Callable[[Tensor], tuple[Tensor, Tensor]]


class MLA:
    """h += out(latent attention of norm(h))."""

    def __init__(
        self,
        spec: MLASpec,
        *,
        backend: AttentionBackend,
        rotation: int,  # which of the pass's rotations
        plan: int,  # which of the pass's attention plans
        layer: int,  # which KV cache
    ) -> None:
        self._spec = spec
        self._rotate = build_rotation(spec.positions, spec.rope_dim)
        self.out = Linear(spec.num_heads * spec.value_dim, {"o": spec.hidden_size}, bias=spec.bias)
        self._inputs: Inputs
        self._kv_norm = RMSNorm(spec.latent_norm)
        self._key_up: Tensor  # [H, nope_dim, kv_rank]
        self._value_up: Tensor  # [H, kv_rank, value_dim]
        self._backend = backend
        self._rotation = rotation
        self._plan = plan
        self._layer = layer

    def load(self, reader: TensorReader, prefix: str, norm: Norm | None) -> None:
        spec = self._spec
        self._inputs = _load_inputs(spec, reader, prefix, norm)
        self._kv_norm.load(reader, f"{prefix}.kv_norm")
        shape = spec.parameters()["kv_up.weight"]
        kv_up = reader.read(f"{prefix}.kv_up.weight", shape)
        keys, values = kv_up.unflatten(0, (spec.num_heads, -1)).split(
            (spec.nope_dim, spec.value_dim), dim=1
        )
        self._key_up = keys.contiguous()
        self._value_up = values.transpose(1, 2).contiguous()
        self.out.load(reader, prefix)

    def add_to(self, h: Tensor, step: ForwardPass, target: Tensor) -> None:
        self.out.add_to(self._attended(h, step), target)

    def branch(self, h: Tensor, step: ForwardPass) -> Tensor:
        """What ``add_to`` would add."""
        return self.out(self._attended(h, step))

    def _attended(self, h: Tensor, step: ForwardPass) -> Tensor:
        """Attention [T, H value_dim] before the output product; only of the step's `outputs`, if it
        has any. Latents of all tokens are written."""
        spec, batch, cos_sin = self._spec, step.batch, step.rotations[self._rotation]
        kv_cache = batch.kv_caches[self._layer]
        slots = batch.groups[batch.layer_groups[self._layer]].slot_mapping
        queries, stored = self._inputs(h)
        latent, shared_key = stored.split((spec.kv_rank, spec.rope_dim), dim=1)
        shared_key = self._rotate(shared_key.unsqueeze(1), *cos_sin)
        keys = torch.cat((self._kv_norm(latent).unsqueeze(1), shared_key), dim=2)
        write_keys(keys, kv_cache, slots)

        cos_sin = (step.narrowed(cos_sin[0]), step.narrowed(cos_sin[1]))
        plain, turned = (
            step.narrowed(queries)
            .unflatten(1, (spec.num_heads, -1))
            .split((spec.nope_dim, spec.rope_dim), dim=2)
        )
        absorbed = _by_head(plain, self._key_up)
        q = torch.cat((absorbed, self._rotate(turned, *cos_sin)), dim=2)
        attended = self._backend.forward(q, kv_cache, step.attention_plans[self._plan])
        return _by_head(attended, self._value_up).flatten(1)


def _by_head(x: Tensor, weights: Tensor) -> Tensor:
    """x [T, H, A] times each head's own matrix [H, A, B]: [T, H, B]."""

    def product(x: Tensor) -> Tensor:
        return torch.bmm(x.transpose(0, 1), weights).transpose(0, 1)

    return in_few_sizes(product, x) if x.is_cpu else product(x)


def _load_inputs(spec: MLASpec, reader: TensorReader, prefix: str, norm: Norm | None) -> Inputs:
    """The function from h to queries [T, H (nope_dim + rope_dim)] and to what keys are made of,
    [T, kv_rank + rope_dim]."""
    num_queries = spec.num_heads * (spec.nope_dim + spec.rope_dim)
    if spec.q_rank is None or spec.query_norm is None:
        to_q = _load_product(spec, {"q": num_queries}, False, reader, prefix, norm)
        to_kv = _load_product(spec, {"kv_down": spec.head_dim}, spec.bias, reader, prefix, norm)
        return lambda h: (to_q(h), to_kv(h))
    sizes = {"q_down": spec.q_rank, "kv_down": spec.head_dim}
    to_both = _load_product(spec, sizes, spec.bias, reader, prefix, norm)
    query_norm = RMSNorm(spec.query_norm)
    query_norm.load(reader, f"{prefix}.q_norm")
    q_up = Linear(spec.q_rank, {"q_up": num_queries}, bias=False)
    q_up.load(reader, prefix)

    def inputs(h: Tensor) -> tuple[Tensor, Tensor]:
        queries, keys = to_both(h).split(tuple(sizes.values()), dim=1)
        return q_up(query_norm(queries)), keys

    return inputs


def _load_product(
    spec: MLASpec,
    sizes: dict[str, int],
    bias: bool,
    reader: TensorReader,
    prefix: str,
    norm: Norm | None,
) -> Map:
    linear = Linear(spec.hidden_size, sizes, bias=bias)
    linear.load(reader, prefix)
    return normed_product(norm, linear.product)
