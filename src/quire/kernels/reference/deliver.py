"""Delivers the tokens that a step sampled: to the end of their rows, and to the host."""

from __future__ import annotations

from torch import Tensor


def deliver(
    token_ids: Tensor, rows: Tensor, lengths: Tensor, of_rows: Tensor, results: Tensor, turn: Tensor
) -> None:
    """Write ``token_ids`` [S] to ``of_rows`` at (``rows``, ``lengths``), and in this order to the
    slot of ``results`` before slot ``turn[0]``.

    ``rows`` and ``lengths`` [S] int64; ``of_rows`` [R, W] and ``results`` [N, S or more] (where the
    host can read) int32; ``turn`` [2] int32, which `reference.fetch.fetch` has advanced.
    """
    places = rows * of_rows.shape[1] + lengths
    of_rows.view(-1).index_copy_(0, places, token_ids.to(of_rows.dtype))
    slot = (turn[:1].long() - 1).remainder(len(results))
    line = results.new_zeros(1, results.shape[1])
    line[0, : len(token_ids)] = token_ids
    results.index_copy_(0, slot, line)
