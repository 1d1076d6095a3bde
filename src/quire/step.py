"""One step of the engine: the plan that goes to every rank, and the result that comes back.

Arrays are NumPy on the host, parallel over the R rows of the step unless said otherwise.
Knows nothing about requests beyond their row, and nothing about the device. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from quire.request import RowSampling
from quire.structured import FREE, Constraint

Int32 = np.ndarray[tuple[int], np.dtype[np.int32]]
Bool = np.ndarray[tuple[int], np.dtype[np.bool_]]


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinedRow:
    """A completion takes a row: everything the worker must know of it until it leaves."""

    row: int
    token_ids: Int32  # [number of tokens known: prompt and output so far]
    num_prompt_tokens: int
    block_ids: tuple[list[int], ...]  # per layer group, the block table so far
    sampling: RowSampling  # its seed is the completion's own
    constraint: Constraint = FREE
    is_beam: bool = False  # the host chooses its tokens: `StepPlan.tokens`

    @property
    def early_ids(self) -> tuple[int, ...]:
        """Tokens that sampling forbids at first; a grammar's own mask forbids them where it can."""
        return () if self.constraint.grammar is not None else self.sampling.too_early_ids


@dataclass(frozen=True, kw_only=True, slots=True)
class TableEntries:
    """Block-table entries of any rows that changed in one layer group; a row's places ascend."""

    group: int
    rows: Int32  # [N] parallel to the others
    places: Int32  # [N] index into the row's block table
    block_ids: Int32  # [N]

    def without(self, row: int) -> TableEntries | None:
        """The entries of the other rows; None: there are none."""
        is_other = self.rows != row
        if is_other.all():
            return self
        if not is_other.any():
            return None
        return TableEntries(
            group=self.group,
            rows=self.rows[is_other],
            places=self.places[is_other],
            block_ids=self.block_ids[is_other],
        )

    @classmethod
    def of_row(cls, row: int, group: int, first: int, block_ids: list[int]) -> TableEntries:
        """Consecutive entries of one row, from place ``first`` on."""
        count = len(block_ids)
        return cls(
            group=group,
            rows=np.full(count, row, dtype=np.int32),
            places=np.arange(first, first + count, dtype=np.int32),
            block_ids=np.array(block_ids, dtype=np.int32),
        )

    @classmethod
    def of_tables(
        cls, rows: Sequence[int], group: int, tables: Sequence[list[int]]
    ) -> TableEntries:
        """All entries of some rows' tables."""
        counts = np.fromiter(map(len, tables), dtype=np.int32, count=len(tables))
        ends = np.cumsum(counts, dtype=np.int32)
        num_entries = int(ends[-1])
        return cls(
            group=group,
            rows=np.repeat(np.array(rows, dtype=np.int32), counts),
            places=np.arange(num_entries, dtype=np.int32) - np.repeat(ends - counts, counts),
            block_ids=np.fromiter(chain.from_iterable(tables), dtype=np.int32, count=num_entries),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RowToken:
    """A token that the host chose (a beam's), written to a running row."""

    row: int
    position: int
    token_id: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPlan:
    """Which rows compute how many tokens, and what changed since the step before.

    The worker applies, in this order: ``left``, ``copies``, ``joined``, ``blocks``, ``tokens``;
    then it computes the rows. A row may leave and be joined by another completion in one plan.
    """

    step_id: int
    left: list[int] = field(default_factory=list)  # rows given up
    copies: list[tuple[int, int]] = field(default_factory=list)  # (source, target) blocks
    joined: list[JoinedRow] = field(default_factory=list)
    blocks: list[TableEntries] = field(default_factory=list)
    tokens: list[RowToken] = field(default_factory=list)
    rows: Int32  # [R]
    num_computed: Int32  # [R] tokens whose KV exists before this step; the first position computed
    num_scheduled: Int32  # [R] tokens computed in this step, >= 1
    samples: Bool  # [R] the row's last token is computed, so its next one is sampled
    epochs: Int32  # [R] who owned the row when this was planned; the host's own, not the worker's
    num_tokens: int = -1  # of all rows; -1: this and the next are computed
    samples_all: bool = False  # every row samples

    def __post_init__(self) -> None:
        if self.num_tokens < 0:
            object.__setattr__(self, "num_tokens", int(self.num_scheduled.sum()))
            object.__setattr__(self, "samples_all", bool(self.samples.all()))

    @property
    def has_changes(self) -> bool:
        """Whether anything but the rows' own progress reaches the worker."""
        return bool(self.joined or self.left or self.blocks or self.copies or self.tokens)

    @property
    def is_decode(self) -> bool:
        """Every row computes one token and samples the next."""
        return self.samples_all and self.num_tokens == len(self.rows)

    @property
    def mean_keys(self) -> float:
        """Keys that a token of the step attends to, on average (approximate)."""
        keys = self.num_scheduled * (self.num_computed + self.num_scheduled / 2)
        return float(keys.sum()) / self.num_tokens

    @property
    def sampled_rows(self) -> Int32:
        """Rows that sample [S]."""
        return self.rows if self.samples_all else self.rows[self.samples]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLogprobs:
    """Log-probabilities of the tokens of one row: N consecutive tokens, K candidates each.

    Column 0 is the token itself, columns 1..K-1 the K-1 most likely ones, best first.
    """

    token_ids: np.ndarray  # [N, K] int32
    logprobs: np.ndarray  # [N, K] float32
    ranks: np.ndarray  # [N] int32, rank of the token itself, 1 is best

    @classmethod
    def join(cls, parts: Sequence[TokenLogprobs]) -> TokenLogprobs:
        """The tokens of one or more ``parts`` in turn; all have equally many columns."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            token_ids=np.concatenate([part.token_ids for part in parts]),
            logprobs=np.concatenate([part.logprobs for part in parts]),
            ranks=np.concatenate([part.ranks for part in parts]),
        )


class Refusal(str):
    """An error of one row that its request caused, not the engine."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What a step produced; S rows sampled: those with ``plan.samples``, in the plan's order."""

    token_ids: Int32  # [S]
    logprobs: dict[int, TokenLogprobs] = field(default_factory=dict)  # row -> its one new token
    prompt_logprobs: dict[int, TokenLogprobs] = field(default_factory=dict)  # row -> this chunk's
    errors: dict[int, str] = field(default_factory=dict)  # row -> why it alone failed; `Refusal`
