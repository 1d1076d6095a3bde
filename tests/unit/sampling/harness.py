"""A sampler with rows, and the exact distributions that it is compared to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from quire.request import RowSampling
from quire.sampling.choice import MakeChoice
from quire.sampling.grammar_masks import MaskSource
from quire.sampling.sampler import SampleOutput, Sampler
from quire.step import JoinedRow, TokenLogprobs
from quire.structured import FREE, Constraint

CPU = torch.device("cpu")


class NoMasks(MaskSource):
    """For rows that no grammar constrains."""

    num_words = 0

    def fill(self, rows_cpu: np.ndarray, masks: np.ndarray) -> np.ndarray:
        raise AssertionError("no row is constrained")

    def errors(self, rows_cpu: np.ndarray) -> dict[int, str]:
        raise AssertionError("no row is constrained")


class Rows:
    """A worker's row table and the sampler over it."""

    def __init__(
        self,
        vocab_size: int,
        *,
        max_rows: int = 8,
        max_len: int = 64,
        device: torch.device = CPU,
        make_choice: MakeChoice | None = None,
        masks: MaskSource | None = None,
    ) -> None:
        """One row more than asked for: nobody's. Without ``masks`` no row may be constrained."""
        self.token_ids = torch.zeros(max_rows + 1, max_len, dtype=torch.int32, device=device)
        self.lengths = np.ones(max_rows + 1, dtype=np.int64)
        self.device = device
        self.sampler = Sampler(
            max_rows=max_rows,
            vocab_size=vocab_size,
            device=device,
            token_ids=self.token_ids,
            make_choice=make_choice,
            masks=masks or NoMasks(),
        )

    def join(
        self,
        row: int,
        sampling: RowSampling,
        *,
        prompt: Sequence[int] = (0,),
        output: Sequence[int] = (),
        constraint: Constraint = FREE,
    ) -> None:
        tokens = np.array([*prompt, *output], dtype=np.int32)
        self.token_ids[row, : len(tokens)] = torch.from_numpy(tokens)
        self.token_ids[row, len(tokens) :] = 1  # whatever a former owner left there
        self.lengths[row] = len(tokens)
        self.sampler.join(
            [
                JoinedRow(
                    row=row,
                    token_ids=tokens,
                    num_prompt_tokens=len(prompt),
                    block_ids=(),
                    sampling=sampling,
                    constraint=constraint,
                )
            ]
        )

    def append(self, row: int, token: int) -> None:
        self.token_ids[row, self.lengths[row]] = token
        self.lengths[row] += 1

    def sample(self, logits: Tensor, rows: Sequence[int]) -> SampleOutput:
        """One step of ``rows``; ``logits`` [S, V] stay as they are."""
        rows_cpu, rows_there, lengths_cpu, lengths = self._places(rows)
        return self.sampler.sample(logits.clone(), rows_there, rows_cpu, lengths, lengths_cpu)

    def sample_on_device(self, logits: Tensor, rows: Sequence[int]) -> SampleOutput:
        """The same by the rows' kind, with a spare row behind them."""
        rows_cpu, rows_there, _, lengths = self._places([*rows, len(self.lengths) - 1])
        kind = self.sampler.graph_kind(rows_cpu[:-1])
        assert kind is not None
        padded = torch.cat([logits, logits[:1]])
        sample = self.sampler.sample_on_device(kind, padded, rows_there, lengths)
        rows_cpu = rows_cpu[:-1]
        return SampleOutput(
            token_ids=sample.token_ids[: len(rows_cpu)],
            logprobs=self.sampler.logprobs_of(sample, rows_cpu),
        )

    def _places(self, rows: Sequence[int]) -> tuple[np.ndarray, Tensor, np.ndarray, Tensor]:
        rows_cpu = np.array(rows, dtype=np.int32)
        lengths_cpu = self.lengths[rows_cpu]
        return (
            rows_cpu,
            torch.from_numpy(rows_cpu).long().to(self.device),
            lengths_cpu,
            torch.from_numpy(lengths_cpu).to(self.device),
        )


def logprobs_of(output: SampleOutput) -> dict[int, TokenLogprobs]:
    """Row -> the log-probabilities of its one new token."""
    found: dict[int, TokenLogprobs] = {}
    for group in output.logprobs:
        host = group.tensors.to_host()
        for index, row in enumerate(group.rows_cpu.tolist()):
            one = slice(index, index + 1)
            found[row] = TokenLogprobs(
                token_ids=host.token_ids[one], logprobs=host.logprobs[one], ranks=host.ranks[one]
            )
    return found


def draws(logits: Tensor, sampling: dict[str, object], *, count: int = 20_000) -> Tensor:
    """Tokens drawn from one row of ``logits`` [V] under many seeds and positions."""
    num_rows, vocab_size = 1000, len(logits)
    table = Rows(vocab_size, max_rows=num_rows, max_len=8)
    for row in range(num_rows):
        table.join(row, RowSampling(seed=row, **sampling))  # type: ignore[arg-type]
    tokens = []
    for position in range(count // num_rows):
        table.lengths[:] = position + 1
        logits_of_rows = logits.repeat(num_rows, 1)
        tokens.append(table.sample(logits_of_rows, range(num_rows)).token_ids)
    return torch.cat(tokens)


def assert_distributed(tokens: Tensor, probabilities: Tensor) -> None:
    """Chi-square: ``tokens`` come from ``probabilities`` [V]; impossible ones never come.

    The limit is 5 standard deviations over the mean of the statistic (Wilson and Hilferty, 1931).
    """
    counts = torch.bincount(tokens, minlength=len(probabilities)).double()
    possible = probabilities > 0
    assert counts[~possible].sum() == 0
    expected = probabilities.double()[possible] * len(tokens)
    assert expected.min() > 5, "too few draws for a chi-square test"
    statistic = float(((counts[possible] - expected) ** 2 / expected).sum())
    freedom = int(possible.sum()) - 1
    if freedom == 0:
        return
    spread = 2 / (9 * freedom)
    assert statistic < freedom * (1 - spread + 5 * math.sqrt(spread)) ** 3


def filtered(
    probabilities: Tensor, *, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Tensor:
    """The definition by a full sort: min_p, then top_k, then top_p of the rest; float64 [V]."""
    order = probabilities.double().argsort(descending=True, stable=True)
    ranked = probabilities.double()[order]
    keep = ranked >= min_p * ranked[0]
    if top_k:
        keep[top_k:] = False
    left = torch.where(keep, ranked, 0.0) / ranked[keep].sum()
    larger = left.cumsum(0) - left  # mass of the more likely ones
    keep &= larger < top_p
    kept = torch.zeros_like(ranked)
    kept[order[keep]] = ranked[keep]
    return kept / kept.sum()
