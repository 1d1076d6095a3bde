"""A device that checks what a real one would silently get wrong.

Its "keys and values" are the token prefix they depend on, kept by block and offset. A row samples
from what it reads there, so a wrong block table, a missing copy or a block given away too early
fails an assertion in the step that reads it. Results may arrive late, as from a GPU.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from quire.request import RowSampling
from quire.step import StepPlan, StepResult, TokenLogprobs

VOCAB = 50
Prefix = tuple[int, ...]


class DeviceViolation(BaseException):
    """The plan asked for something wrong. No `Exception`: the engine must not recover from it."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise DeviceViolation(message)


@dataclass
class FakeRow:
    tokens: list[int]
    tables: list[list[int]]
    sampling: RowSampling


@dataclass
class FakeResult:
    device: FakeDevice
    step_id: int
    outcome: StepResult | Exception
    is_done: bool = True

    def result(self) -> StepResult:
        if isinstance(self.outcome, Exception):
            self.device.unread.clear()
            self.device.error = None
            raise self.outcome
        require(self.device.unread.pop(0) == self.step_id, "results are read in order")
        return self.outcome


def next_token(tokens: list[int], seed: int, vocab: int = VOCAB) -> int:
    """The "model": a function of the whole prefix and the row's seed."""
    return zlib.crc32(repr((tokens, seed)).encode()) % vocab


def token_scores(tokens: list[int]) -> np.ndarray:
    """[VOCAB] log-probabilities of the next token."""
    scores = np.array([-next_token([*tokens, t], 7, 1000) / 100 for t in range(VOCAB)])
    return (scores - np.log(np.exp(scores).sum())).astype(np.float32)


def prefix_mark(tokens: list[int]) -> int:
    return zlib.crc32(repr(tokens).encode())


@dataclass
class FakeDevice:
    """Executes plans in order; `submit` has the executor's signature."""

    block_size: int
    windows: tuple[int | None, ...] = (None,)
    ignores_seed: bool = False
    fails_on: int | None = None  # a token id that breaks every step it is computed in
    rows: dict[int, FakeRow] = field(default_factory=dict)
    memory: dict[tuple[int, int, int], int] = field(default_factory=dict)  # group, block, offset
    unread: list[int] = field(default_factory=list)
    error: RuntimeError | None = None
    num_computed_tokens: int = 0
    max_batch: int = 0
    max_in_flight: int = 0

    def submit(self, plan: StepPlan) -> FakeResult:
        self.unread.append(plan.step_id)
        self._apply(plan)
        self.max_in_flight = max(self.max_in_flight, len(self.unread))
        if self.error is None:
            try:
                return FakeResult(self, plan.step_id, self._compute(plan))
            except RuntimeError as error:
                self.error = error  # as on a stream: until it is read, later steps are void too
        return FakeResult(self, plan.step_id, self.error)

    def close(self) -> None:
        self.rows.clear()

    def _apply(self, plan: StepPlan) -> None:
        for row in plan.left:
            self.rows.pop(row, None)
        for source, target in plan.copies:
            for group in range(len(self.windows)):
                for offset in range(self.block_size):
                    mark = self.memory.get((group, source, offset))
                    if mark is not None:
                        self.memory[(group, target, offset)] = mark
        for joined in plan.joined:
            require(joined.row not in self.rows, "the row has an owner")
            self.rows[joined.row] = FakeRow(
                tokens=joined.token_ids.tolist(),
                tables=[list(ids) for ids in joined.block_ids],
                sampling=joined.sampling,
            )
        for change in plan.blocks:
            lists = [part.tolist() for part in (change.rows, change.places, change.block_ids)]
            for row, place, block in zip(*lists, strict=True):
                table = self.rows[row].tables[change.group]
                require(place <= len(table), "a table has no holes")
                table[place : place + 1] = [block]
        for token in plan.tokens:
            tokens = self.rows[token.row].tokens
            del tokens[token.position :]
            tokens.append(token.token_id)

    def _compute(self, plan: StepPlan) -> StepResult:
        spans = list(zip(plan.rows, plan.num_computed, plan.num_scheduled, strict=True))
        self.num_computed_tokens += plan.num_tokens
        self.max_batch = max(self.max_batch, len(spans))
        if plan.is_decode:  # in one launch rows read what earlier steps wrote, while others write
            for row, start, _ in spans:
                self._check(self.rows[row], int(start), int(start))
        for row, start, count in spans:
            self._write(self.rows[row], int(start), int(start + count))
        token_ids, logprobs = [], {}
        for (row, start, count), samples in zip(spans, plan.samples, strict=True):
            end = int(start + count)
            self._check(self.rows[row], int(start), end)
            if samples:
                token, candidates = self._sample(self.rows[row], end)
                token_ids.append(token)
                if candidates is not None:
                    logprobs[int(row)] = candidates
        return StepResult(
            token_ids=np.array(token_ids, dtype=np.int32),
            logprobs=logprobs,
        )

    def _slot(self, row: FakeRow, group: int, position: int) -> tuple[int, int, int]:
        block = row.tables[group][position // self.block_size]
        require(block != 0, "the null block is never read or written")
        return group, block, position % self.block_size

    def _write(self, row: FakeRow, start: int, end: int) -> None:
        for position in range(start, end):
            require(position < len(row.tokens), "a token is computed before it is known")
            if row.tokens[position] == self.fails_on:
                raise RuntimeError("the fake device cannot compute this token")
            for group in range(len(self.windows)):
                slot = self._slot(row, group, position)
                self.memory[slot] = prefix_mark(row.tokens[: position + 1])

    def _check(self, row: FakeRow, start: int, end: int) -> None:
        """Every query of the step sees the keys of its own prefix, as far as its window goes."""
        for group, window in enumerate(self.windows):
            first = 0 if window is None else max(0, start - window + 1)
            for position in range(first, end):
                found = self.memory.get(self._slot(row, group, position))
                require(found == prefix_mark(row.tokens[: position + 1]), "wrong keys and values")

    def _sample(self, row: FakeRow, end: int) -> tuple[int, TokenLogprobs | None]:
        require(len(row.tokens) >= end, "a token is computed before it is known")
        known = row.tokens[:end]
        token = next_token(known, 0 if self.ignores_seed else row.sampling.seed)
        if token in row.sampling.stop_token_ids and row.sampling.min_tokens:
            token = VOCAB - 1
        del row.tokens[end:]
        row.tokens.append(token)
        if row.sampling.num_logprobs is None:
            return token, None
        scores = token_scores(known)
        best = np.argsort(-scores, kind="stable")[: row.sampling.num_logprobs]
        ids = np.concatenate([[token], best])
        return token, TokenLogprobs(
            token_ids=ids[None].astype(np.int32),
            logprobs=scores[ids][None],
            ranks=np.array([1 + int((scores > scores[token]).sum())], dtype=np.int32),
        )
