"""Parts of a batch: some of its rows, or some of its queries."""

from __future__ import annotations

from dataclasses import replace

import torch

from quire.batch import Batch


def some_rows(batch: Batch, first: int, last: int) -> tuple[slice, Batch]:
    """(the tokens of rows ``first`` to ``last``, the batch of those rows alone).

    For backends that compute some rows of a step differently from the rest.
    """
    assert batch.num_decode_rows is not None, "a mixed graph's rows are known on the device alone"
    tokens = slice(*batch.query_start_cpu[[first, last]].tolist())
    rows = slice(first, last)
    query_start_cpu = batch.query_start_cpu[first : last + 1] - tokens.start
    num_decode_rows = min(max(batch.num_decode_rows - first, 0), last - first)
    has_all_decode_rows = num_decode_rows == batch.num_decode_rows
    return tokens, replace(
        batch,
        input_ids=batch.input_ids[tokens],
        positions=batch.positions[tokens],
        query_start=batch.query_start[first : last + 1] - tokens.start,
        seq_lens=batch.seq_lens[rows],
        query_start_cpu=query_start_cpu,
        seq_lens_cpu=batch.seq_lens_cpu[rows],
        num_decode_rows=num_decode_rows,
        max_query_len=int(query_start_cpu.diff().max()),
        max_seq_len=int(batch.seq_lens_cpu[rows].max()),
        groups=tuple(
            replace(
                group,
                block_table=group.block_table[rows],
                slot_mapping=group.slot_mapping[tokens],
            )
            for group in batch.groups
        ),
        outputs=None,  # only for the model's last layer, which is never given part of a batch
        decode_order=batch.decode_order if has_all_decode_rows else None,
    )


def outputs_alone(batch: Batch, group: int) -> Batch:
    """A batch that attends for the tokens of `batch.outputs` alone, each as a row of one query.

    It is for layers of ``group``; the other groups are left as they are.
    """
    assert batch.outputs is not None
    # searched among the inner borders, so that no index whatever gives a row that does not exist
    owners = torch.searchsorted(batch.query_start[1:-1], batch.outputs, right=True)
    count, device = len(owners), batch.device
    positions = batch.positions.index_select(0, batch.outputs)
    whole = batch.groups[group]
    alone = replace(
        whole,
        block_table=whole.block_table.index_select(0, owners),
        slot_mapping=whole.slot_mapping.index_select(0, batch.outputs),
    )
    seq_lens = (positions + 1).to(torch.int32)
    if device.type == "cpu":
        seq_lens_cpu = seq_lens
    else:  # the lengths are on the device: an upper bound
        seq_lens_cpu = torch.full((count,), batch.max_seq_len, dtype=torch.int32)
    return replace(
        batch,
        input_ids=batch.input_ids.index_select(0, batch.outputs),
        positions=positions,
        query_start=torch.arange(count + 1, dtype=torch.int32, device=device),
        seq_lens=seq_lens,
        query_start_cpu=torch.arange(count + 1, dtype=torch.int32),
        seq_lens_cpu=seq_lens_cpu,
        num_decode_rows=count,
        max_query_len=1,
        groups=(*batch.groups[:group], alone, *batch.groups[group + 1 :]),
        outputs=None,
        decode_order=None,
    )
