"""A part of a batch, for backends that compute some rows of a step otherwise than the rest."""

from __future__ import annotations

from dataclasses import replace

from quire.batch import Batch


def some_rows(batch: Batch, first: int, last: int) -> tuple[slice, Batch]:
    """Where the tokens of rows ``first`` to ``last`` are, and the batch of those rows alone."""
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
        outputs=None,  # a matter of the model's last layer, which gets no parts
        decode_order=batch.decode_order if has_all_decode_rows else None,
    )
