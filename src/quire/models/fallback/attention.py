"""PagedAttention: computes the attention layers of a transformers model from the paged cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from quire.attention.backend import AttentionBackend, AttentionProblem
from quire.attention.selection import select_backends
from quire.batch import Batch
from quire.kernels.reference.attention import write_kv
from quire.models.decoder import Placement
from quire.models.fallback.probe import AttentionCall, Probed


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    """What the attention layers need during one forward."""

    batch: Batch
    plans: tuple[Any, ...]  # of the backends, which alone understand them
    layers: Iterator[int]  # each call is the next layer


class PagedAttention:
    """The `Answerer` of a model that runs: the n-th call of a forward is layer n."""

    def __init__(self, probed: Probed, placement: Placement) -> None:
        problems = [_problem(call, placement) for call in probed.calls]
        backends = select_backends(placement.attention_backend, problems)
        self.backend_name = str(backends)
        self._dtype = placement.dtype
        uses = list(zip(problems, probed.kv_layout.group_of_layer, strict=True))
        distinct = list(dict.fromkeys(uses))
        self._backends: list[tuple[AttentionBackend, int]] = [
            (backends.build(problem), group) for problem, group in distinct
        ]
        self._plan_of_layer = [distinct.index(use) for use in uses]
        self._step: _Step

    @contextmanager
    def serving(self, batch: Batch) -> Iterator[None]:
        """Answer calls for the tokens of ``batch``."""
        self._step = _Step(
            batch=batch,
            plans=tuple(backend.plan(batch, group) for backend, group in self._backends),
            layers=iter(range(len(self._plan_of_layer))),
        )
        yield
        assert next(self._step.layers, None) is None, "a layer made no call"

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Any, options: Mapping[str, Any]
    ) -> Tensor:
        batch = self._step.batch
        layer = next(self._step.layers)
        kv_cache = batch.kv_caches[layer]
        slots = batch.groups[batch.layer_groups[layer]].slot_mapping
        value_dim, head_dim = value.shape[3], key.shape[3]
        # The cache has one head size: smaller values are padded with zeros.
        wide = F.pad(value, (0, head_dim - value_dim)) if value_dim < head_dim else value
        write_kv(self._flat(key), self._flat(wide), kv_cache, slots)
        plan = self._plan_of_layer[layer]
        backend, _ = self._backends[plan]
        sinks = options.get("s_aux")
        attended = backend.forward(
            self._flat(query),
            kv_cache,
            self._step.plans[plan],
            None if sinks is None else sinks.flatten().float(),
        )
        return attended[None, ..., :value_dim].to(value.dtype)

    def _flat(self, heads: Tensor) -> Tensor:
        """[1, N, T, D], perhaps in float32 after rotation, as [T, N, D] in the model's dtype."""
        return heads[0].transpose(0, 1).to(self._dtype).contiguous()


def _problem(call: AttentionCall, placement: Placement) -> AttentionProblem:
    return AttentionProblem(
        num_heads=call.num_heads,
        num_kv_heads=call.num_kv_heads,
        head_dim=call.head_dim,
        scale=call.scale,
        dtype=placement.dtype,
        device=placement.device.type,
        cache_dtype=placement.cache_dtype,
        block_size=placement.block_size,
        window=call.window,
        soft_cap=call.soft_cap,
        has_sinks=call.has_sinks,
    )
