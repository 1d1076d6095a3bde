"""From a plan and the rows to the tensors of a forward. Knows nothing about the model.

The plan's arrays go up in one copy; input ids, positions and slots are computed on the device,
where the newest tokens are before the host has read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quire.batch import Batch, GroupBatch
from quire.step import StepPlan
from quire.worker.kv_memory import KVMemory
from quire.worker.rows import Rows
from quire.worker.step_layout import StepLayout
from quire.worker.upload import upload

TABLE_MULTIPLE = 4  # block tables are cut to a multiple of this: fewer shapes, little extra work


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledRows:
    """The S rows whose next token is sampled, in the plan's order."""

    hidden_index: Tensor  # [S] int64, each row's last token in the batch
    rows: Tensor  # [S] int64
    lengths: Tensor  # [S] int64, tokens before the new one: also its position
    rows_cpu: np.ndarray  # [S] int32
    lengths_cpu: np.ndarray  # [S] int32

    def __len__(self) -> int:
        return len(self.rows_cpu)

    def split(self, size: int) -> Iterator[SampledRows]:
        """The rows in parts of at most ``size``."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield SampledRows(
                hidden_index=self.hidden_index[part],
                rows=self.rows[part],
                lengths=self.lengths[part],
                rows_cpu=self.rows_cpu[part],
                lengths_cpu=self.lengths_cpu[part],
            )


class BatchBuilder:
    """Builds the batch of a plan whose changes the rows already hold."""

    def __init__(self, rows: Rows, kv: KVMemory, *, max_tokens: int, device: torch.device) -> None:
        self._rows = rows
        self._kv = kv
        self._layer_groups = kv.layout.group_of_layer
        self._arange = torch.arange(max_tokens + 1, device=device)
        self._device = device

    def build(self, plan: StepPlan, layout: StepLayout) -> tuple[Batch, SampledRows]:
        """The batch, and which of its tokens are followed by a sampled one. R must not be 0."""
        num_computed = plan.num_computed[layout.order]
        lengths = plan.num_computed + plan.num_scheduled
        seq_lens_cpu = lengths[layout.order]
        rows_cpu, lengths_cpu = plan.rows[plan.samples], lengths[plan.samples]
        rows, starts, seq_lens, query_start, hidden_index, sampled_rows, sampled_lengths = upload(
            [
                plan.rows[layout.order],
                num_computed - layout.query_start[:-1],  # position of a token - its place in T
                seq_lens_cpu,
                layout.query_start,
                layout.last_token[plan.samples],
                rows_cpu,
                lengths_cpu,
            ],
            self._device,
        )
        max_seq_len = int(seq_lens_cpu.max())
        input_ids, positions, groups = self._gather(rows, starts, query_start, plan, max_seq_len)
        batch = Batch(
            input_ids=input_ids,
            positions=positions,
            query_start=query_start.to(torch.int32),
            seq_lens=seq_lens.to(torch.int32),
            query_start_cpu=torch.from_numpy(layout.query_start),
            seq_lens_cpu=torch.from_numpy(seq_lens_cpu),
            num_decode_rows=layout.num_decode_rows,
            max_query_len=int(plan.num_scheduled.max()),
            max_seq_len=max_seq_len,
            groups=groups,
            kv_caches=self._kv.of_layer,
            layer_groups=self._layer_groups,
        )
        sampled = SampledRows(
            hidden_index=hidden_index,
            rows=sampled_rows,
            lengths=sampled_lengths,
            rows_cpu=rows_cpu,
            lengths_cpu=lengths_cpu,
        )
        return batch, sampled

    def decode_batch(self, rows: Tensor, positions: Tensor) -> Batch:
        """One token of each of R rows, from device tensors alone: what a graph can capture.

        Lengths on the host are upper bounds, and block tables have their full width.
        """
        num_rows = len(rows)
        input_ids, groups = self._look_up(rows, rows, positions, self._rows.block_tables.shape[2])
        longest = self._rows.token_ids.shape[1] - 1
        query_start = self._arange[: num_rows + 1].to(torch.int32)
        return Batch(
            input_ids=input_ids,
            positions=positions,
            query_start=query_start,
            seq_lens=(positions + 1).to(torch.int32),
            query_start_cpu=torch.arange(num_rows + 1, dtype=torch.int32),
            seq_lens_cpu=torch.full((num_rows,), longest, dtype=torch.int32),
            num_decode_rows=num_rows,
            max_query_len=1,
            max_seq_len=longest,
            groups=groups,
            kv_caches=self._kv.of_layer,
            layer_groups=self._layer_groups,
        )

    def _gather(
        self,
        rows: Tensor,
        starts: Tensor,
        query_start: Tensor,
        plan: StepPlan,
        max_seq_len: int,
    ) -> tuple[Tensor, Tensor, tuple[GroupBatch, ...]]:
        """Input ids, positions and, per layer group, tables and slots, read from the rows."""
        place = self._arange[: plan.num_tokens]
        owner = torch.searchsorted(query_start[1:], place, right=True)  # [T], index into rows
        positions = starts.index_select(0, owner) + place
        width = self._table_width(max_seq_len)
        input_ids, groups = self._look_up(rows, rows.index_select(0, owner), positions, width)
        return input_ids, positions, groups

    def _look_up(
        self, rows: Tensor, token_rows: Tensor, positions: Tensor, width: int
    ) -> tuple[Tensor, tuple[GroupBatch, ...]]:
        """Of tokens at ``positions`` [T] of ``token_rows`` [T], which belong to ``rows`` [R]."""
        block_size = self._kv.block_size
        token_ids, tables = self._rows.token_ids, self._rows.block_tables
        input_ids = token_ids.view(-1).index_select(0, token_rows * token_ids.shape[1] + positions)
        entries = token_rows * tables.shape[2] + positions // block_size
        blocks = tables.flatten(1).index_select(1, entries).to(torch.int64)  # [groups, T]
        slots = blocks * block_size + positions % block_size

        trimmed = tables[:, :, :width].index_select(1, rows)  # [groups, R, B]
        groups = tuple(
            GroupBatch(block_table=table, slot_mapping=slot)
            for table, slot in zip(trimmed.unbind(0), slots.unbind(0), strict=True)
        )
        return input_ids.to(torch.int64), groups

    def _table_width(self, max_seq_len: int) -> int:
        """Entries that the longest row needs, rounded up."""
        needed = -(-max_seq_len // self._kv.block_size)
        rounded = -(-needed // TABLE_MULTIPLE) * TABLE_MULTIPLE
        return min(rounded, self._rows.block_tables.shape[2])
