"""The sizes of a step's graphs, and which one a step takes. Imports no torch.

For decode steps there is a graph for every bucket of rows. For mixed steps there is one for every
bucket of tokens, up to what a few prompts that arrive together have: for so few tokens the host
would take longer to launch a step by operation than a GPU takes to compute it. For small models
that holds for full steps, too, so they have a graph for these: while prompts wait, nearly all steps
are full.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

_SHORT = (16, 32, 64, 96, 128, 192, 256)
# Multiples of the tiles of products, so that padding costs next to nothing.
_LONG = tuple(range(384, 2049, 128))
FOR_ALL_MODELS = (*_SHORT, *_LONG)
MOST_FOR_ALL = _LONG[-1]
_FULL = 3 / 4  # of the bucket of full steps must be filled: padding costs attention, too
# What a GPU computes while the host launches a layer: 800 TFLOP/s, half a millisecond.
_FLOP_WHILE_LAUNCHING = 4e11
# Keys that a token sees on average. A step of more than `MOST_FOR_ALL` tokens that see more keys is
# run by operation: attention planned on the host, which graphs cannot have, is faster there.
MOST_KEYS = 512
# Captured at start, at tens of milliseconds each; the others when a step first needs them.
MIXED_TOKENS_AT_START = frozenset(_SHORT)


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphSizes:
    """The buckets, in ascending order; the last of ``rows`` is the most rows of any step."""

    rows: tuple[int, ...]
    tokens: tuple[int, ...]  # of mixed steps; may be empty

    @classmethod
    def of(cls, *, max_rows: int, max_tokens: int, layer_bytes: float) -> GraphSizes:
        """``layer_bytes``: of a layer's weights; two bytes make two operations for each token."""
        tokens = tuple(size for size in FOR_ALL_MODELS if size <= max_tokens)
        if MOST_FOR_ALL < max_tokens <= _FLOP_WHILE_LAUNCHING / layer_bytes:
            tokens += (max_tokens,)
        return cls(rows=row_buckets(max_rows), tokens=tokens)

    @property
    def max_rows(self) -> int:
        return self.rows[-1]

    @property
    def max_tokens(self) -> int:
        """The most tokens of any graph."""
        return max((self.max_rows, *self.tokens))

    @property
    def tokens_at_start(self) -> tuple[int, ...]:
        """The buckets captured at start; with the largest, which gives the memory pool its size."""
        last = self.tokens[-1:]
        return tuple(size for size in self.tokens if size in MIXED_TOKENS_AT_START or size in last)

    def some_of_each_kind(self) -> GraphSizes:
        """A few buckets whose graphs need nearly every kernel that a start needs."""
        rows = {self.rows[0], self.rows[len(self.rows) // 2], self.rows[-1]}
        return GraphSizes(
            rows=tuple(sorted(rows)), tokens=(*self.tokens[:1], *self.tokens[1:][-1:])
        )

    def row_bucket(self, num_rows: int) -> int:
        return self.rows[bisect_left(self.rows, num_rows)]

    def token_bucket(self, num_tokens: int) -> int | None:
        """The bucket for so many tokens; None if there is none, or only one that is much larger."""
        index = bisect_left(self.tokens, num_tokens)
        if index == len(self.tokens):
            return None
        size = self.tokens[index]
        return size if size <= MOST_FOR_ALL or num_tokens >= _FULL * size else None

    def rows_of(self, tokens: int) -> int:
        """The most rows that a mixed step of so many tokens can have."""
        return min(tokens, self.max_rows)


def row_buckets(max_rows: int) -> tuple[int, ...]:
    """1, 2, 4, ... 32, then in steps of 32, later of a quarter; the last is ``max_rows`` itself."""
    sizes = [1]
    while sizes[-1] < max_rows:
        size = sizes[-1]
        step = size if size < 32 else max(32, (1 << size.bit_length() - 1) // 4)
        sizes.append(min(size + step, max_rows))
    return tuple(sizes)
