"""Sizes of a step's graphs: which there are, and which one a step takes. Imports no torch.

A decode step has a graph for every bucket of rows. A mixed step has one for every bucket of tokens,
as far as launching its operations one by one takes longer than computing them: beyond, the padding
of a bucket would cost more than the graph saves.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

MIXED_TOKENS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
# Captured at start, which costs tens of milliseconds each; the others when a step needs them.
MIXED_TOKENS_AT_START = frozenset(size for size in MIXED_TOKENS if size <= 256)

# Measured on an H200 (benchmarks/RESULTS.md): what a layer's launches take the host, and how fast
# products of a few hundred lines are. With fewer tokens weights are what a step waits for, and
# padding costs nothing.
LAYER_LAUNCH_SECONDS = 300e-6
FLOPS_PER_SECOND = 500e12
FREE_TOKENS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphSizes:
    """Both ascending; the last of ``rows`` is the most rows that a step can have."""

    rows: tuple[int, ...]
    tokens: tuple[int, ...]  # of mixed steps; may be empty

    @classmethod
    def of(
        cls, *, max_rows: int, max_tokens: int, num_layers: int, num_parameters: int
    ) -> GraphSizes:
        limit = min(
            max_tokens, mixed_token_limit(num_layers=num_layers, num_parameters=num_parameters)
        )
        return cls(
            rows=row_buckets(max_rows),
            tokens=tuple(size for size in MIXED_TOKENS if size <= limit),
        )

    @property
    def max_rows(self) -> int:
        return self.rows[-1]

    @property
    def max_tokens(self) -> int:
        """Of any graph."""
        return max((self.max_rows, *self.tokens))

    @property
    def tokens_at_start(self) -> tuple[int, ...]:
        """The largest is among them: it gives the pool of memory its size."""
        last = self.tokens[-1:]
        return tuple(size for size in self.tokens if size in MIXED_TOKENS_AT_START or size in last)

    def row_bucket(self, num_rows: int) -> int:
        return self.rows[bisect_left(self.rows, num_rows)]

    def token_bucket(self, num_tokens: int) -> int | None:
        """None where no graph has so many tokens."""
        index = bisect_left(self.tokens, num_tokens)
        return self.tokens[index] if index < len(self.tokens) else None

    def rows_of(self, tokens: int) -> int:
        """The most rows of a mixed step with so many tokens."""
        return min(tokens, self.max_rows)


def row_buckets(max_rows: int) -> tuple[int, ...]:
    """1, 2, 4, ... 32, then in steps of 32 and later of a quarter, up to ``max_rows`` itself."""
    sizes = [1]
    while sizes[-1] < max_rows:
        size = sizes[-1]
        step = size if size < 32 else max(32, (1 << size.bit_length() - 1) // 4)
        sizes.append(min(size + step, max_rows))
    return tuple(sizes)


def mixed_token_limit(*, num_layers: int, num_parameters: int) -> int:
    """The tokens whose products take as long as launching the step's operations one by one."""
    launches = num_layers * LAYER_LAUNCH_SECONDS
    return max(FREE_TOKENS, int(launches * FLOPS_PER_SECOND / (2 * num_parameters)))
