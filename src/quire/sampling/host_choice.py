"""How tokens are chosen on a CPU: by torch operations, of which the host picks those needed.

Knows nothing of logits processors but the one for penalties.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from quire.kernels.cpp import library
from quire.kernels.cpp.rows import argmax
from quire.kernels.reference import sampling_table as columns
from quire.kernels.reference.sampling_random import uniform
from quire.sampling import ops
from quire.sampling.choice import SampleOnDevice
from quire.sampling.logits_processor import LogitsProcessor, Selection
from quire.sampling.logprobs import LogprobTensors, token_logprobs
from quire.sampling.parameters import MAX_LOGPROBS, RowParameters, SampleKind
from quire.sampling.penalties import Penalties

_CPU_BLOCK_BYTES = 4 * 2**20  # weights of so few rows stay in the cache between operations


@dataclass(frozen=True, kw_only=True, slots=True)
class _Draw:
    """Rows that draw at random, with or without filters."""

    selection: Selection
    is_filtered: bool


class HostChoice:
    """Decides on the host what each row needs, and computes only that."""

    on_device: Mapping[SampleKind, SampleOnDevice] = MappingProxyType({})

    def __init__(self, parameters: RowParameters, vocab_size: int, token_ids: Tensor) -> None:
        self._parameters = parameters
        self._device = token_ids.device
        self._rows_at_once = max(1, _CPU_BLOCK_BYTES // (4 * vocab_size))
        self._argmax = ops.argmax if library.why_not() else argmax
        self._rows_cpu: np.ndarray | None = None
        self._draws: tuple[_Draw, ...] = ()

    def penalties(self) -> LogitsProcessor:
        return Penalties(self._device)

    def forbid(self, logits: Tensor, places_cpu: np.ndarray, masks: np.ndarray) -> None:
        bits = np.unpackbits((~masks).view(np.uint8), axis=1, bitorder="little")
        forbidden = torch.from_numpy(bits[:, : logits.shape[1]]).view(torch.bool)
        for place, line in zip(places_cpu.tolist(), forbidden, strict=True):
            logits[place].masked_fill_(line, -torch.inf)

    def choose(self, logits: Tensor, rows: Tensor, lengths: Tensor, rows_cpu: np.ndarray) -> Tensor:
        """Take every row's best token if any row is greedy, then put the drawn tokens of the other
        rows in place."""
        if rows_cpu is not self._rows_cpu:
            self._arrange(rows_cpu)
        logits = logits.float()
        if self._parameters.is_random[rows_cpu].all():
            chosen = torch.empty(len(logits), dtype=torch.int64, device=self._device)
        else:
            chosen = self._argmax(logits)
        if not self._draws:
            return chosen
        lines = self._parameters.table.take(rows)
        uniforms = uniform(lines.integers[:, columns.SEED], lengths)
        for draw in self._draws:
            positions = draw.selection.positions
            drawn = self._draw(logits, uniforms.index_select(0, positions), draw)
            chosen.index_copy_(0, positions, drawn)
        return chosen

    def token_logprobs(self, logits: Tensor, targets: Tensor, count: int) -> LogprobTensors:
        if not 0 <= count <= MAX_LOGPROBS:
            return token_logprobs(logits, targets, count)
        # Always the same number, since which of equal values `topk` takes depends on it.
        return token_logprobs(logits, targets, MAX_LOGPROBS).cut(count)

    def _arrange(self, rows_cpu: np.ndarray) -> None:
        parameters = self._parameters
        is_random, is_filtered = parameters.is_random[rows_cpu], parameters.is_filtered[rows_cpu]
        self._draws = tuple(
            _Draw(
                selection=Selection.of(mask, rows_cpu, self._device),
                is_filtered=filtered,
            )
            for filtered in (False, True)
            if (mask := is_random & (is_filtered == filtered)).any()
        )
        self._rows_cpu = rows_cpu

    def _draw(self, logits: Tensor, uniforms: Tensor, draw: _Draw) -> Tensor:
        """One random token for each selected row, a block of rows at a time."""
        selection = draw.selection
        lines = self._parameters.table.take(selection.rows)
        temperature = lines.reals[:, columns.TEMPERATURE].float()
        top_p, min_p = lines.reals[:, columns.TOP_P], lines.reals[:, columns.MIN_P].float()
        top_k = lines.integers[:, columns.TOP_K]
        drawn = []
        for block in ops.row_blocks(len(selection), self._rows_at_once):
            mine = selection.positions[block]
            of_rows = logits[block] if selection.is_whole else logits.index_select(0, mine)
            weights = ops.to_weights(of_rows, temperature[block])
            if draw.is_filtered:
                least = ops.thresholds(weights, top_k[block], top_p[block], min_p[block])
                weights = torch.where(weights >= least.unsqueeze(1), weights, 0.0)
            drawn.append(ops.draw(weights, uniforms[block]))
        return torch.cat(drawn)
