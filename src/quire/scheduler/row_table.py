"""Row table: the counters of everything that runs, as NumPy columns indexed by row.

A steady step works on whole columns, never on one row at a time, and indexes them by `Index`
arrays: any other type costs NumPy a conversion at every access. Knows nothing about blocks but how
many tokens they hold.

::

    positions     0 ......... num_computed ........ num_confirmed ...... num_tokens ..... max_len
    KV            exists, or will after the steps in flight
    token ids     known to the host                 | known to the device only (in flight)
"""

from __future__ import annotations

import numpy as np

from quire.request import Watch
from quire.scheduler.completion import NO_ROW, Completion
from quire.scheduler.stop_tokens import StopTokens

Index = np.ndarray[tuple[int], np.dtype[np.intp]]

NEVER = 1 << 30  # more tokens than any row has
_WATCH_EVERY = {Watch.EVERY_STEP: 1, Watch.NOW_AND_THEN: 8, Watch.AT_END: NEVER}


class RowTable:
    """Columns of ``max_rows``; ``completions[row]`` owns the row."""

    def __init__(self, max_rows: int, max_model_len: int) -> None:
        def column() -> np.ndarray:
            return np.zeros(max_rows, dtype=np.int32)

        self.token_ids = np.zeros((max_rows, max_model_len + 1), dtype=np.int32)
        self.num_computed = column()
        self.num_confirmed = column()  # tokens the host has seen
        self.num_tokens = column()  # confirmed, and those sampled by the steps in flight
        self.max_len = column()  # the completion ends when it has this many tokens
        self.capacity = column()  # tokens that the row's blocks hold
        self.max_pending = column()  # sampled tokens that may be in flight at once
        self.epoch = column()  # grows when the row changes hands: late results are recognised
        self.tail_may_be_shared = np.zeros(max_rows, dtype=np.bool_)
        self.watch_every = column()  # the front end is told each time so many tokens are known
        self.is_special = np.zeros(max_rows, dtype=np.bool_)  # its results bring more than a token
        self.is_beam = np.zeros(max_rows, dtype=np.bool_)  # the host chooses its next token
        self.has_siblings = np.zeros(max_rows, dtype=np.bool_)
        self.stops = StopTokens(max_rows)
        self.completions: list[Completion | None] = [None] * max_rows
        self._free = list(range(max_rows - 1, -1, -1))
        self.num_left = 0  # how often any row was left so far

    @property
    def num_free(self) -> int:
        return len(self._free)

    def join(
        self, completion: Completion, *, num_computed: int, capacity: int, max_pending: int
    ) -> None:
        """Give the completion a row. The KV of ``num_computed`` tokens exists; its blocks hold
        ``capacity`` tokens, and those that it will write to are not shared."""
        row = self._free.pop()
        self.completions[row] = completion
        completion.row = row
        known = len(completion.token_ids)
        self.token_ids[row, :known] = completion.token_ids
        self.num_computed[row] = num_computed
        self.num_confirmed[row] = self.num_tokens[row] = known
        self.max_len[row] = completion.max_len
        self.capacity[row] = capacity
        self.max_pending[row] = max_pending
        self.tail_may_be_shared[row] = False
        self.watch_every[row] = _WATCH_EVERY[completion.request.watch]
        sampling = completion.sampling
        self.is_special[row] = (
            completion.is_beam
            or sampling.num_logprobs is not None
            or sampling.num_prompt_logprobs is not None
            or completion.first_token_time == 0.0
        )
        self.is_beam[row] = completion.is_beam
        self.has_siblings[row] = bool(completion.siblings)
        self.stops.join(row, () if completion.is_beam else sampling.stop_token_ids)

    def leave(self, row: int) -> None:
        """Free the row; the completion keeps its confirmed tokens."""
        completion = self.completions[row]
        assert completion is not None
        completion.token_ids = self.confirmed_tokens(row).copy()
        completion.row = NO_ROW
        self.completions[row] = None
        self.stops.leave(row)
        self.epoch[row] += 1
        self.num_left += 1
        self._free.append(row)

    def confirmed_tokens(self, row: int) -> np.ndarray:
        return self.token_ids[row, : self.num_confirmed[row]]

    def waste(self, rows: Index) -> float:
        """The share of the token places in blocks of ``rows`` that are not computed yet."""
        capacity = self.capacity[rows]
        reserved = int(capacity.sum())
        filled = int(np.minimum(self.num_computed[rows], capacity).sum())
        return 1 - filled / reserved if reserved else 0.0
