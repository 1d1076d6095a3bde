"""The batches that graphs capture: made of device tensors alone, in shapes that are a bucket's.

Lengths on the host are upper bounds, and block tables have their full width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from quire.batch import Batch, SharedBlocks
from quire.kernels.reference.lookup import RowState, StepTokens
from quire.kv_layout import KVLayout
from quire.worker.batch_builder import groups_of
from quire.worker.graph_inputs import MixedInputs, SampledInputs
from quire.worker.kv_memory import KVMemory
from quire.worker.rows import Rows


class Lookup(Protocol):
    """A module of kernels: `kernels.reference.lookup` or its twin."""

    def decode_tokens(self, state: RowState, rows: Tensor, lengths: Tensor) -> StepTokens: ...

    def mixed_tokens(
        self,
        state: RowState,
        rows: Tensor,
        starts: Tensor,
        query_start: Tensor,
        seq_lens: Tensor,
        num_tokens: int,
    ) -> StepTokens: ...


class GraphBatches:
    """Of decode steps and of mixed ones with at most ``max_tokens`` tokens."""

    def __init__(self, rows: Rows, kv: KVMemory, lookup: Lookup, *, max_tokens: int) -> None:
        self._state = rows.state
        self._kv = kv
        self._lookup = lookup
        self._arange = torch.arange(max_tokens + 1, dtype=torch.int32, device=kv.device)
        self._arange_cpu = torch.arange(max_tokens + 1, dtype=torch.int32)
        self._sharing_group = first_full_group(kv.layout)

    def decode(self, inputs: SampledInputs, shared: SharedBlocks | None) -> Batch:
        """The last token of each row."""
        num_rows = len(inputs.rows)
        found = self._lookup.decode_tokens(self._state, inputs.rows, inputs.lengths)
        batch = replace(
            self._batch(found, self._arange[: num_rows + 1], num_decode_rows=num_rows),
            decode_order=inputs.order,
        )
        if shared is None:
            return batch
        groups = list(batch.groups)
        assert self._sharing_group is not None, "rows share blocks only in a group without a window"
        groups[self._sharing_group] = replace(groups[self._sharing_group], shared=shared)
        return replace(batch, groups=tuple(groups))

    def mixed(self, inputs: MixedInputs, num_tokens: int) -> Batch:
        """Any number of tokens of each row; the last row has those that are left."""
        found = self._lookup.mixed_tokens(
            self._state,
            inputs.rows,
            inputs.starts,
            inputs.query_start,
            inputs.seq_lens,
            num_tokens,
        )
        batch = self._batch(found, inputs.query_start, num_decode_rows=None)
        return replace(batch, outputs=inputs.outputs)

    def _batch(
        self, found: StepTokens, query_start: Tensor, *, num_decode_rows: int | None
    ) -> Batch:
        num_rows, longest = len(found.seq_lens), self._state.longest
        return Batch(
            input_ids=found.input_ids,
            positions=found.positions,
            query_start=query_start,
            seq_lens=found.seq_lens,
            query_start_cpu=self._arange_cpu[: num_rows + 1],
            seq_lens_cpu=torch.full((num_rows,), longest, dtype=torch.int32),
            num_decode_rows=num_decode_rows,
            max_query_len=len(found.input_ids) if num_decode_rows is None else 1,
            max_seq_len=longest,
            groups=groups_of(found),
            kv_caches=self._kv.of_layer,
            layer_groups=self._kv.layout.group_of_layer,
        )


def first_full_group(layout: KVLayout) -> int | None:
    """The layer group whose rows may share blocks: a window gives a prefix's blocks away."""
    return next((i for i, group in enumerate(layout.groups) if group.window is None), None)
