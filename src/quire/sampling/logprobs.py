"""Log-probabilities of chosen tokens, with the most likely ones beside them.

Exact: a float32 log-softmax over the whole vocabulary, the true top-k and the true rank, in blocks
of rows so that temporaries stay small. Knows nothing about requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quire.sampling.ops import log_sum_exp, row_blocks
from quire.step import TokenLogprobs

_MAX_TEMPORARY_BYTES = 64 * 2**20
_TEMPORARY_BYTES_PER_TOKEN = 8  # float32 logits and their exponentials


@dataclass(frozen=True, kw_only=True, slots=True)
class LogprobTensors:
    """Log-probabilities of N tokens on the device. Column 0 is the token itself; the K most likely
    follow, the best first."""

    token_ids: Tensor  # [N, 1 + K] int64
    logprobs: Tensor  # [N, 1 + K] float32
    ranks: Tensor  # [N] int32, 1 + the number of tokens more likely than the token itself

    @classmethod
    def of(cls, token_ids: Tensor, logprobs: Tensor, ranks: Tensor) -> LogprobTensors:
        return cls(token_ids=token_ids, logprobs=logprobs, ranks=ranks)

    @classmethod
    def join(cls, parts: Sequence[LogprobTensors]) -> LogprobTensors:
        """The tokens of all ``parts`` in turn; all have equally many columns."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            token_ids=torch.cat([part.token_ids for part in parts]),
            logprobs=torch.cat([part.logprobs for part in parts]),
            ranks=torch.cat([part.ranks for part in parts]),
        )

    def take(self, places: Tensor) -> LogprobTensors:
        """The tokens at ``places`` [M] among the N."""
        return LogprobTensors(
            token_ids=self.token_ids.index_select(0, places),
            logprobs=self.logprobs.index_select(0, places),
            ranks=self.ranks.index_select(0, places),
        )

    def cut(self, k: int) -> LogprobTensors:
        """The same tokens with only the ``k`` most likely beside them."""
        return LogprobTensors(
            token_ids=self.token_ids[:, : 1 + k],
            logprobs=self.logprobs[:, : 1 + k],
            ranks=self.ranks,
        )

    def to_host(self) -> TokenLogprobs:
        """All N as one host record: consecutive tokens of one row."""
        return TokenLogprobs(  # sync: the host reads log-probabilities that a request asked for
            token_ids=self.token_ids.cpu().numpy().astype(np.int32),
            logprobs=self.logprobs.cpu().numpy(),
            ranks=self.ranks.cpu().numpy(),
        )


def token_logprobs(logits: Tensor, targets: Tensor, k: int) -> LogprobTensors:
    """Log-probabilities of ``targets`` [N] under ``logits`` [N, V], with the ``k`` most likely.

    ``k`` of -1, or above V, means the whole vocabulary.
    """
    vocab_size = logits.shape[1]
    k = vocab_size if k < 0 else min(k, vocab_size)
    rows_at_once = max(1, _MAX_TEMPORARY_BYTES // (vocab_size * _TEMPORARY_BYTES_PER_TOKEN))
    blocks = row_blocks(len(logits), rows_at_once)
    parts = [_of_block(logits[block], targets[block], k) for block in blocks]
    return LogprobTensors.join(parts)


def _of_block(logits: Tensor, targets: Tensor, k: int) -> LogprobTensors:
    logits = logits.float()
    own_ids = targets.unsqueeze(1)
    own = logits.gather(1, own_ids)
    ranks = (logits > own).sum(dim=1, dtype=torch.int32) + 1
    best, best_ids = logits.topk(k, dim=1)
    return LogprobTensors(
        token_ids=torch.cat([own_ids, best_ids], dim=1),
        logprobs=torch.cat([own, best], dim=1) - log_sum_exp(logits),
        ranks=ranks,
    )
