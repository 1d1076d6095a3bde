"""Decoder: any causal language model that a DecoderSpec describes, composed from its parts.

Knows nothing about rows, sampling or files: it turns a Batch into hidden states and those into
logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quire.attention.backend import AttentionBackend, AttentionProblem
from quire.attention.selection import name_of, select_backend
from quire.batch import Batch
from quire.layers.attention import Attention
from quire.layers.embedding import build_embedding
from quire.layers.forward_pass import ForwardPass
from quire.layers.head import Head
from quire.layers.norm import build_norm
from quire.layers.rope import RopeAngles
from quire.layers.spec import AlibiSpec, AttentionSpec, RopeSpec
from quire.models.blocks import BLOCKS, Block
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


class Decoder:
    """Built without weights; ``load`` pulls them, and may be called again."""

    def __init__(self, spec: DecoderSpec, placement: Placement) -> None:
        self.spec = spec
        self.kv_layout = spec.kv_layout
        self.embedding = build_embedding(spec.embedding)
        self.final_norm = build_norm(spec.final_norm)
        self.head = Head(spec.head)
        self._angles = [
            RopeAngles(rope, max_model_len=placement.max_model_len, device=placement.device)
            for rope in spec.ropes
        ]
        # One backend per kind of attention, and one plan a step per layer group that uses it.
        self._planned: dict[tuple[AttentionProblem, int], AttentionBackend] = {}
        problems = [_problem(layer.attention, placement) for layer in spec.layers]
        backend = select_backend(placement.attention_backend, problems)
        self.attention_backend = name_of(backend)
        self.layers: list[Block] = self._build_layers(backend, problems)

    def load(self, reader: TensorReader) -> None:
        self.embedding.load(reader, "embedding")
        for index, layer in enumerate(self.layers):
            layer.load(reader, f"layers.{index}")
        self.final_norm.load(reader, "final_norm")
        self.head.load(reader, "head", self.embedding)

    def forward(self, batch: Batch) -> Tensor:
        """Hidden states [T, E] after the final norm; writes the tokens' keys and values."""
        step = ForwardPass(
            batch=batch,
            rotations=tuple(angles.at(batch.positions) for angles in self._angles),
            attention_plans=tuple(
                backend.plan(batch, group) for (_, group), backend in self._planned.items()
            ),
        )
        h = self.embedding(batch.input_ids, batch.positions)
        for layer in self.layers:
            layer(h, step)
        return self.final_norm(h)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [S, V] of hidden states [S, E], in the model's dtype or in float32."""
        return self.head(hidden)

    def _build_layers(
        self, backend: type[AttentionBackend], problems: list[AttentionProblem]
    ) -> list[Block]:
        ropes = self.spec.ropes
        layers: list[Block] = []
        for index, (layer, problem) in enumerate(zip(self.spec.layers, problems, strict=True)):
            use = (problem, self.kv_layout.group_of_layer[index])
            if use not in self._planned:
                self._planned[use] = backend.build(problem)
            positions = layer.attention.positions
            attention = Attention(
                layer.attention,
                backend=self._planned[use],
                rotation=ropes.index(positions) if isinstance(positions, RopeSpec) else -1,
                plan=list(self._planned).index(use),
                layer=index,
            )
            layers.append(BLOCKS[layer.block](layer, attention))
        return layers


def _problem(spec: AttentionSpec, placement: Placement) -> AttentionProblem:
    return AttentionProblem(
        num_heads=spec.num_heads,
        num_kv_heads=spec.num_kv_heads,
        head_dim=spec.head_dim,
        scale=spec.scale,
        dtype=placement.dtype,
        device=placement.device.type,
        block_size=placement.block_size,
        window=spec.window,
        soft_cap=spec.soft_cap,
        alibi_slopes=spec.positions.slopes if isinstance(spec.positions, AlibiSpec) else None,
    )
