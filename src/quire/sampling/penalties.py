"""Penalties on tokens that were used already.

For a token that occurs ``c`` times in the output, in this order:

* repetition: if it occurs in prompt or output, the logit is divided by the penalty if positive,
  else multiplied by it (Keskar et al., CTRL, 2019);
* frequency: minus ``penalty * c``;
* presence: minus ``penalty`` if ``c > 0`` (the last two as the OpenAI API defines them).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from quire.pinned_memory import upload
from quire.request import RowSampling
from quire.sampling.logits_processor import SampleStep, Selection
from quire.sampling.ops import row_blocks
from quire.step import JoinedRow

_MAX_TEMPORARY_BYTES = 64 * 2**20
NO_PENALTIES = (1.0, 0.0, 0.0)


def penalties_of(sampling: RowSampling) -> tuple[float, float, float]:
    return sampling.repetition_penalty, sampling.frequency_penalty, sampling.presence_penalty


class Penalties:
    """Repetition, frequency and presence penalties, from the rows' own token ids."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._by_row: dict[int, tuple[float, float, float]] = {}
        self._selection: Selection | None = None

    def add_request(self, joined: JoinedRow) -> bool:
        values = penalties_of(joined.sampling)
        if values == NO_PENALTIES:
            return False
        self._by_row[joined.row] = values
        return True

    def remove_request(self, row: int) -> None:
        del self._by_row[row]

    def apply(self, logits: Tensor, selection: Selection, step: SampleStep) -> dict[int, str]:
        if selection is not self._selection:
            by_row = [self._by_row[row] for row in selection.rows_cpu.tolist()]
            self._values = upload(np.array(by_row, dtype=np.float32), self._device)
            self._selection = selection
        longest = int(step.lengths_cpu[selection.positions_cpu].max())
        lengths = selection.take(step.lengths)
        rows_at_once = max(1, _MAX_TEMPORARY_BYTES // (4 * logits.shape[1] + 32 * longest))
        for block in row_blocks(len(selection), rows_at_once):
            rows = selection.rows[block]
            history = step.token_ids[:, :longest].index_select(0, rows).long()
            _penalise(
                logits,
                selection.positions[block],
                history,
                lengths[block],
                step.num_prompt_tokens.index_select(0, rows),
                self._values[block],
            )
        return {}


def _penalise(
    logits: Tensor,  # [S, V], changed in place
    positions: Tensor,  # [N]
    history: Tensor,  # [N, L] int64, garbage past a row's length
    lengths: Tensor,  # [N]
    num_prompt_tokens: Tensor,  # [N]
    values: Tensor,  # [N, 3] repetition, frequency, presence
) -> None:
    place = torch.arange(history.shape[1], device=history.device)
    is_known = place < lengths.unsqueeze(1)
    is_output = is_known & (place >= num_prompt_tokens.unsqueeze(1))
    # Places past the end repeat the row's first token, since equal tokens get equal logits.
    tokens = torch.where(is_known, history, history[:, :1])
    counts = torch.zeros(len(tokens), logits.shape[1], device=logits.device)
    counts = counts.scatter_add_(1, tokens, is_output.float()).gather(1, tokens)
    flat = positions.unsqueeze(1) * logits.shape[1] + tokens
    old = logits.take(flat)
    repetition, frequency, presence = values.unsqueeze(2).unbind(dim=1)
    new = torch.where(old > 0, old / repetition, old * repetition)
    logits.put_(flat, new - frequency * counts - presence * (counts > 0))
