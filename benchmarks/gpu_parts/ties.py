"""Whether rounding explains that two runs of a float32 model chose different tokens.

A sampled token is where a random number falls among cumulative weights, so now and then a tiny
change of the logits moves the draw to a neighbour: with a vocabulary of 2,000 and changes of 1e-6,
in one draw of some thousands. Keys that are computed again after a preemption differ by that much.
The test is direct: noise of that size is added to the logits of transformers many times, and both
tokens must be drawn. These logits need not equal Quire's; a wrong token is never drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from quire.request import RowSampling
from quire.sampling.sampler import Sampler
from quire.step import JoinedRow
from quire.worker.grammar_rows import GrammarRows
from quire.worker.step_timeout import StepTimeout

NOISES = (1e-6, 1e-5, 1e-4)  # of logits; float32 sums of another order differ by some 1e-6
NUM_TRIES = 256


def noise_that_exchanges(
    logits: Tensor,
    sampling: RowSampling,
    prompt: Sequence[int],
    output: Sequence[int],
    tokens: tuple[int, int],
) -> float | None:
    """The smallest of `NOISES` with which ``logits`` [V] yield both ``tokens`` after ``prompt`` and
    ``output``; None: rounding does not explain the difference."""
    known = np.array([*prompt, *output], dtype=np.int32)
    token_ids = torch.from_numpy(np.stack([known, known]))  # the second row is the spare one
    sampler = Sampler(
        max_rows=1,
        vocab_size=len(logits),
        device=torch.device("cpu"),
        token_ids=token_ids,
        masks=GrammarRows(max_rows=1, vocab_size=len(logits), timeout=StepTimeout(0)),
    )
    row = JoinedRow(
        row=0, token_ids=known, num_prompt_tokens=len(prompt), block_ids=(), sampling=sampling
    )
    sampler.join([row])
    random = torch.Generator().manual_seed(0)
    rows = torch.zeros(NUM_TRIES, dtype=torch.int64)
    lengths = torch.full((NUM_TRIES,), len(known))
    for noise in NOISES:
        changes = torch.randn(NUM_TRIES, len(logits), generator=random) * noise
        changes[0] = 0.0
        found = sampler.sample(
            logits.float().cpu() + changes, rows, rows.numpy(), lengths, lengths.numpy()
        )
        if {*tokens} <= {*found.token_ids.tolist()}:
            return noise
    return None
