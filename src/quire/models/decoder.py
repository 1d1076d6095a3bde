"""Decoder: any causal language model that a DecoderSpec describes, composed from its parts.

Knows nothing about rows, sampling or files: it turns a Batch into hidden states and those into
logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from quire.attention.backend import AttentionBackend, AttentionProblem
from quire.attention.selection import select_backends
from quire.attention.some_rows import outputs_alone
from quire.batch import Batch
from quire.layers.attention import Attention
from quire.layers.embedding import Embedding
from quire.layers.forward_pass import ForwardPass
from quire.layers.head import Head
from quire.layers.mla import MLA
from quire.layers.mla_spec import MLASpec
from quire.layers.norm import build_norm
from quire.layers.rope import RopeAngles
from quire.layers.spec import AlibiSpec, AttentionSpec, RopeSpec
from quire.models.blocks import Mixer, build_block
from quire.models.spec import DecoderSpec
from quire.weights.reader import TensorReader


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where and how a model runs."""

    dtype: torch.dtype
    device: torch.device
    attention_backend: str  # or several, in order of preference
    max_model_len: int
    block_size: int  # of the KV cache
    cache_dtype: torch.dtype | None = None  # of the KV cache, if it is another


class Decoder:
    """A model built without weights; ``load`` reads them, and may be called again."""

    def __init__(self, spec: DecoderSpec, placement: Placement) -> None:
        self.spec = spec
        self.kv_layout = spec.kv_layout
        self.embedding = Embedding(spec.embedding)
        self.final_norm = build_norm(spec.final_norm)
        self.head = Head(spec.head)
        self._angles = [
            RopeAngles(rope, max_model_len=placement.max_model_len, device=placement.device)
            for rope in spec.ropes
        ]
        attentions = [layer.attention for layer in spec.layers if layer.attention is not None]
        problems = [_problem(attention, placement) for attention in attentions]
        backends = select_backends(placement.attention_backend, problems)
        self.attention_backend = str(backends)
        # A backend for each kind of attention in a layer group, and one plan a step.
        uses = list(zip(problems, self.kv_layout.group_of_layer, strict=True))
        self._planned = [(backends.build(use[0]), use[1]) for use in dict.fromkeys(uses)]
        plan_of_layer = [list(dict.fromkeys(uses)).index(use) for use in uses]
        self._last_plan = None if spec.layers[-1].attention is None else plan_of_layer[-1]
        parts = self._build_attentions(attentions, problems, plan_of_layer, placement.max_model_len)
        self.layers = [
            build_block(layer, None if layer.attention is None else next(parts))
            for layer in spec.layers
        ]

    def load(self, reader: TensorReader) -> None:
        self.embedding.load(reader, "embedding")
        for index, layer in enumerate(self.layers):
            layer.load(reader, f"layers.{index}")
        self.final_norm.load(reader, "final_norm")
        self.head.load(reader, "head", self.embedding)

    def with_a_layer_of_each_kind(self) -> Decoder:
        """A smaller decoder that launches the same kernels: one layer of each kind, and the
        last."""
        kinds = dict(zip(self.spec.layers[:-1], self.layers[:-1], strict=True))
        smaller = copy(self)
        smaller.layers = [*kinds.values(), self.layers[-1]]
        return smaller

    def forward(self, batch: Batch) -> Tensor:
        """Hidden states [S, E] of `batch.outputs` after the final norm; writes the keys and values
        of all tokens.

        Every layer but the last computes all tokens, since the next one attends to them. The last
        computes keys and values of all tokens, and the rest for the output tokens only: a few of
        the thousands in a prompt.
        """
        # Before the rotations: after those, kernels may read a step's lengths and slots before
        # they wait (`kernels/triton/launch.py`).
        plans = tuple(backend.plan(batch, group) for backend, group in self._planned)
        last_plans = self._plans_of_last_layer(batch, plans)
        step = ForwardPass(
            batch=batch,
            rotations=tuple(angles.at(batch.positions) for angles in self._angles),
            attention_plans=plans,
        )
        h = self.embedding(batch.input_ids, batch.positions)
        for layer in self.layers[:-1]:
            h = layer(h, step)
        last = replace(step, attention_plans=last_plans, outputs=batch.outputs)
        return self.final_norm(self.layers[-1](h, last))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [S, V] of hidden states [S, E], in the model's dtype or in float32."""
        return self.head(hidden)

    def best_tokens(self, hidden: Tensor) -> Tensor | None:
        """The tokens [S] int64 of the largest logits; None where those have to be computed."""
        return self.head.best(hidden)

    def _plans_of_last_layer(self, batch: Batch, plans: tuple[Any, ...]) -> tuple[Any, ...]:
        """``plans`` with the last layer's replaced by one for the output tokens only."""
        number = self._last_plan
        if batch.outputs is None or number is None:
            return plans
        backend, group = self._planned[number]
        plan = backend.plan(outputs_alone(batch, group), group)
        return (*plans[:number], plan, *plans[number + 1 :])

    def _build_attentions(
        self,
        specs: Sequence[AttentionSpec | MLASpec],
        problems: Sequence[AttentionProblem],
        plan_of_layer: Sequence[int],
        max_model_len: int,
    ) -> Iterator[Mixer]:
        """The attention of each layer that has one; ``layer`` counts only these layers."""
        for layer, (spec, problem) in enumerate(zip(specs, problems, strict=True)):
            yield build_attention(
                spec,
                problem=problem,
                backend=self._planned[plan_of_layer[layer]][0],
                rotation=self._rotation(spec),
                plan=plan_of_layer[layer],
                layer=layer,
                max_model_len=max_model_len,
            )

    def _rotation(self, spec: AttentionSpec | MLASpec) -> int:
        """Index of the layer's rotation in `ForwardPass.rotations`; -1 if it has none."""
        positions = spec.positions
        return self.spec.ropes.index(positions) if isinstance(positions, RopeSpec) else -1


def build_attention(
    spec: AttentionSpec | MLASpec,
    *,
    problem: AttentionProblem,
    backend: AttentionBackend,
    rotation: int,
    plan: int,
    layer: int,
    max_model_len: int,
) -> Mixer:
    if isinstance(spec, MLASpec):
        return MLA(spec, backend=backend, rotation=rotation, plan=plan, layer=layer)
    if spec.log_length is not None and max_model_len <= spec.log_length:
        spec = replace(spec, log_length=None)  # no position is beyond it
    return Attention(
        spec, problem=problem, backend=backend, rotation=rotation, plan=plan, layer=layer
    )


def _problem(spec: AttentionSpec | MLASpec, placement: Placement) -> AttentionProblem:
    problem = AttentionProblem(
        num_heads=spec.num_heads,
        num_kv_heads=spec.num_kv_heads,
        head_dim=spec.head_dim,
        scale=spec.scale,
        dtype=placement.dtype,
        device=placement.device.type,
        cache_dtype=placement.cache_dtype,
        block_size=placement.block_size,
        window=spec.window,
    )
    if isinstance(spec, MLASpec):
        return replace(problem, value_dim=spec.kv_rank)
    return replace(
        problem,
        soft_cap=spec.soft_cap,
        has_sinks=spec.sinks,
        alibi_slopes=spec.positions.slopes if isinstance(spec.positions, AlibiSpec) else None,
    )
