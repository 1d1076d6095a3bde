"""From a plan and the rows to the tensors of a forward. Knows nothing about the model.

The plan's arrays are uploaded in one copy. Input ids, positions and slots are computed on the
device, which has the newest tokens before the host has read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quire.batch import Batch, GroupBatch
from quire.kernels.reference.lookup import StepTokens, look_up
from quire.step import StepPlan
from quire.worker.kv_memory import KVMemory
from quire.worker.rows import Rows
from quire.worker.step_layout import StepLayout
from quire.worker.upload import Uploader

TABLE_MULTIPLE = 4  # block tables are cut to a multiple of this: fewer shapes, little extra work


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledRows:
    """The S rows whose next token is sampled, in the plan's order."""

    rows: Tensor  # [S] int64
    lengths: Tensor  # [S] int64, number of tokens before the new one, which is its position
    rows_cpu: np.ndarray  # [S] int32
    lengths_cpu: np.ndarray  # [S] int32

    def __len__(self) -> int:
        return len(self.rows_cpu)

    def split(self, size: int) -> Iterator[SampledRows]:
        """The rows in parts of at most ``size`` rows."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield SampledRows(
                rows=self.rows[part],
                lengths=self.lengths[part],
                rows_cpu=self.rows_cpu[part],
                lengths_cpu=self.lengths_cpu[part],
            )


class BatchBuilder:
    """Builds the batch of a plan. The plan's changes must have been applied to the rows."""

    def __init__(self, rows: Rows, kv: KVMemory, *, max_tokens: int, device: torch.device) -> None:
        self._kv = kv
        self._state = rows.state
        # where attention reads what masks hide: see `KVMemory`
        self._tables_cpu = rows.block_tables.numpy() if device.type == "cpu" else None
        self._layer_groups = kv.layout.group_of_layer
        self._arange = torch.arange(max_tokens + 1, device=device)
        self._upload = Uploader(device)

    def build(self, plan: StepPlan, layout: StepLayout) -> tuple[Batch, SampledRows]:
        """(the batch, the rows that sample). The batch's outputs are the last tokens of those rows.

        R must not be 0. If no row samples, one token is an output nevertheless, so that no layer
        has to cope with zero lines.
        """
        if self._tables_cpu is not None:
            self._kv.enter(plan, self._tables_cpu)
        num_computed = plan.num_computed[layout.order]
        lengths = plan.num_computed + plan.num_scheduled
        seq_lens_cpu = lengths[layout.order]
        rows_cpu, lengths_cpu = plan.rows[plan.samples], lengths[plan.samples]
        tensors = self._upload(
            [
                plan.rows[layout.order],
                num_computed - layout.query_start[:-1],  # a token's position less its index in T
                seq_lens_cpu,
                layout.query_start,
                layout.last_token[plan.samples] if len(rows_cpu) else layout.last_token[:1],
                rows_cpu,
                lengths_cpu,
            ]
        )
        rows, starts, seq_lens, query_start, outputs, sampled_rows, sampled_lengths = tensors
        max_seq_len = int(seq_lens_cpu.max())
        place = self._arange[: plan.num_tokens]
        owner = torch.searchsorted(query_start[1:], place, right=True)  # [T], index into rows
        found = look_up(
            self._state,
            rows,
            rows.index_select(0, owner),
            starts.index_select(0, owner) + place,
            seq_lens.to(torch.int32),
            width=self._table_width(max_seq_len),
        )
        batch = Batch(
            input_ids=found.input_ids,
            positions=found.positions,
            query_start=query_start.to(torch.int32),
            seq_lens=found.seq_lens,
            query_start_cpu=torch.from_numpy(layout.query_start),
            seq_lens_cpu=torch.from_numpy(seq_lens_cpu),
            num_decode_rows=layout.num_decode_rows,
            max_query_len=int(plan.num_scheduled.max()),
            max_seq_len=max_seq_len,
            groups=groups_of(found),
            kv_caches=self._kv.of_layer,
            layer_groups=self._layer_groups,
            outputs=None if len(rows_cpu) == plan.num_tokens else outputs,  # None: all of them
        )
        sampled = SampledRows(
            rows=sampled_rows,
            lengths=sampled_lengths,
            rows_cpu=rows_cpu,
            lengths_cpu=lengths_cpu,
        )
        return batch, sampled

    def _table_width(self, max_seq_len: int) -> int:
        """Entries of the block table that the longest row needs, rounded up."""
        needed = -(-max_seq_len // self._kv.block_size)
        rounded = -(-needed // TABLE_MULTIPLE) * TABLE_MULTIPLE
        return min(rounded, self._state.block_tables.shape[2])


def groups_of(found: StepTokens) -> tuple[GroupBatch, ...]:
    """Where keys and values are, for each layer group."""
    return tuple(
        GroupBatch(block_table=table, slot_mapping=slots)
        for table, slots in zip(found.block_tables.unbind(0), found.slots.unbind(0), strict=True)
    )
