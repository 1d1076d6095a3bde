"""The definition of choosing tokens by a table of parameters, with full sorts and float64 sums.

Reads everything on the device, so that it can take the place of a kernel.
Shapes: R rows of the step, V vocabulary. ``rows`` [R] int64 are lines of the table, ``lengths`` [R]
int64 how many tokens each row has.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quire.kernels.reference import sampling_table as columns
from quire.kernels.reference.sampling_random import uniform
from quire.kernels.reference.sampling_table import SamplingTable


def choose(logits: Tensor, rows: Tensor, lengths: Tensor, table: SamplingTable) -> Tensor:
    """Logits [R, V] of any float dtype -> the next tokens [R] int64.

    Rows of temperature 0 take the best token, the first of equal ones. The others keep weights of
    at least ``min_p`` times the largest; of those the ``top_k`` largest; of those the fewest that
    sum to ``top_p`` of what is left. Weights equal to the last one kept are kept too. The token is
    the first whose cumulative weight exceeds ``uniform(seed, length)`` times the total.
    """
    lines = table.take(rows)
    temperature = lines.reals[:, columns.TEMPERATURE].float()
    logits = logits.float()
    largest = logits.amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).min)
    divisor = torch.where(temperature > 0, temperature, 1.0).unsqueeze(1)
    weights = ((logits - largest) / divisor).exp()
    weights = weights.where(weights >= _least_kept(weights, lines).unsqueeze(1), 0.0)
    uniforms = uniform(lines.integers[:, columns.SEED], lengths)
    return torch.where(temperature > 0, _draw(weights, uniforms), logits.argmax(dim=1))


def forbid_early(
    logits: Tensor, rows: Tensor, lengths: Tensor, table: SamplingTable, early_ids: Tensor
) -> None:
    """Set the ``logits`` [R, V] of a row's early tokens to -inf, in place, while its output is
    shorter than its minimum. ``early_ids`` [rows, N] int32 has them for each row, then -1."""
    lines = table.take(rows).integers
    num_output = lengths - lines[:, columns.NUM_PROMPT]
    is_short = num_output < lines[:, columns.MIN_TOKENS]
    tokens = early_ids.index_select(0, rows).long()
    line, place = torch.nonzero(is_short.unsqueeze(1) & (tokens >= 0), as_tuple=True)
    logits[line, tokens[line, place]] = -torch.inf


def penalise(
    logits: Tensor, rows: Tensor, lengths: Tensor, token_ids: Tensor, table: SamplingTable
) -> Tensor:
    """The logits in float32 after the rows' penalties.

    ``token_ids`` [rows, width] holds the tokens of every row: prompt, then output.
    """
    lines, size = table.take(rows), logits.shape[1]
    place = torch.arange(token_ids.shape[1], device=logits.device)
    history = token_ids.index_select(0, rows).long()
    is_known = place < lengths.unsqueeze(1)
    is_output = is_known & (place >= lines.integers[:, columns.NUM_PROMPT, None])
    # What lies beyond a row's tokens is counted in an extra column, which is cut off.
    history = history.where(is_known, size)
    counts = torch.zeros(len(logits), size + 1, device=logits.device)
    seen = counts.scatter_add(1, history, is_known.float())[:, :size] > 0
    counts = counts.scatter_add(1, history, is_output.float())[:, :size]
    repetition, frequency, presence = (
        lines.reals[:, column, None].float()
        for column in (columns.REPETITION, columns.FREQUENCY, columns.PRESENCE)
    )
    logits = logits.float()
    repeated = torch.where(logits > 0, logits / repetition, logits * repetition)
    return torch.where(seen, repeated - frequency * counts - presence * (counts > 0), logits)


def best_logprobs(logits: Tensor, targets: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [R, V], ``targets`` [R] -> ids, log-probabilities, ranks of the targets [R] int32.

    Ids and log-probabilities are [R, 1 + count]: the target, then the best tokens, of equal ones
    the first.
    """
    logits = logits.float()
    own = logits.gather(1, targets.unsqueeze(1))
    best = logits.sort(dim=1, descending=True, stable=True).indices[:, :count]
    token_ids = torch.cat([targets.unsqueeze(1), best], dim=1)
    logprobs = logits.double().log_softmax(dim=1).gather(1, token_ids).float()
    return token_ids, logprobs, (logits > own).sum(dim=1, dtype=torch.int32) + 1


def to_processed(raw: Tensor, penalised: Tensor, rows: Tensor, table: SamplingTable) -> Tensor:
    """The logits [R, V] that each row wants log-probabilities of, raw or processed."""
    lines = table.take(rows)
    temperature = lines.reals[:, columns.TEMPERATURE].float()
    divisor = torch.where(temperature > 0, temperature, 1.0).unsqueeze(1)
    is_processed = lines.integers[:, columns.LOGPROBS] == columns.PROCESSED_LOGPROBS
    return torch.where(is_processed.unsqueeze(1), penalised / divisor, raw.float())


def _least_kept(weights: Tensor, lines: SamplingTable) -> Tensor:
    """The smallest weight [R] that each row keeps."""
    ranked = weights.sort(dim=1, descending=True).values
    top_k = lines.integers[:, columns.TOP_K]
    last = torch.where(top_k > 0, top_k, ranked.shape[1]).clamp(max=ranked.shape[1]) - 1
    floor = torch.maximum(
        ranked.gather(1, last.unsqueeze(1)), lines.reals[:, columns.MIN_P, None].float()
    )
    left = ranked.where(ranked >= floor, 0.0).double()
    larger = left.cumsum(dim=1) - left
    top_p = lines.reals[:, columns.TOP_P, None]
    is_kept = (left > 0) & ((larger < top_p * left.sum(dim=1, keepdim=True)) | (top_p >= 1.0))
    return ranked.where(is_kept, torch.inf).amin(dim=1)


def _draw(weights: Tensor, uniforms: Tensor) -> Tensor:
    ends = weights.double().cumsum(dim=1)
    token = (ends <= uniforms.unsqueeze(1) * ends[:, -1:]).sum(dim=1)
    index = torch.arange(weights.shape[1], device=weights.device)
    last = torch.where(weights > 0, index, 0).amax(dim=1)  # if rounding leaves no cumulative above
    return torch.minimum(token, last)
