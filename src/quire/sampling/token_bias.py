"""Processors that touch given tokens of a row: bias, allowed tokens, minimum length, bad words.

Each keeps what a row asked for as arrays. When a step's rows change, it packs those of its rows
into flat index tensors, so that the steps in between take a handful of tensor operations. A flat
index is ``position * V + token``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from quire.pinned_memory import upload
from quire.sampling.logits_processor import SampleStep, Selection
from quire.step import JoinedRow

_FORBIDDEN = -torch.inf

Given = TypeVar("Given")
Made = TypeVar("Made")


class LogitBias:
    """Adds a number to the logits of given tokens."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._bias: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # tokens, values
        self._arrays = _OncePerRequest(_bias_arrays)
        self._selection: Selection | None = None

    def add_request(self, joined: JoinedRow) -> bool:
        if not joined.sampling.logit_bias:
            return False
        self._bias[joined.row] = self._arrays.of(joined.sampling.logit_bias)
        return True

    def remove_request(self, row: int) -> None:
        del self._bias[row]

    def apply(self, logits: Tensor, selection: Selection, step: SampleStep) -> dict[int, str]:
        if selection is not self._selection:
            self._pack(selection, logits.shape[1])
        logits.view(-1).index_add_(0, self._flat, self._values)
        return {}

    def _pack(self, selection: Selection, vocab_size: int) -> None:
        bias = [self._bias[row] for row in selection.rows_cpu.tolist()]
        tokens = _TokensOfRows(selection, [tokens for tokens, _ in bias])
        self._flat = tokens.flat(vocab_size, self._device)
        self._values = upload(np.concatenate([values for _, values in bias]), self._device)
        self._selection = selection


class AllowedTokens:
    """Forbids all tokens but the given ones."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._allowed: dict[int, np.ndarray] = {}
        self._arrays = _OncePerRequest(_token_ids)
        self._selection: Selection | None = None

    def add_request(self, joined: JoinedRow) -> bool:
        if not joined.sampling.allowed_token_ids:
            return False
        self._allowed[joined.row] = self._arrays.of(joined.sampling.allowed_token_ids)
        return True

    def remove_request(self, row: int) -> None:
        del self._allowed[row]

    def apply(self, logits: Tensor, selection: Selection, step: SampleStep) -> dict[int, str]:
        if selection is not self._selection:
            allowed = [self._allowed[row] for row in selection.rows_cpu.tolist()]
            self._flat = _TokensOfRows(selection, allowed).flat(logits.shape[1], self._device)
            self._selection = selection
        kept = logits.take(self._flat)
        logits.index_fill_(0, selection.positions, _FORBIDDEN)
        logits.put_(self._flat, kept)
        return {}


class MinTokens:
    """Forbids stop and EOS tokens until a row has produced its least number of tokens."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._limits: dict[int, tuple[int, np.ndarray]] = {}  # least output length, stop tokens
        self._selection: Selection | None = None

    def add_request(self, joined: JoinedRow) -> bool:
        if not joined.early_ids:
            return False
        self._limits[joined.row] = joined.sampling.min_tokens, _token_ids(joined.early_ids)
        return True

    def remove_request(self, row: int) -> None:
        del self._limits[row]

    def apply(self, logits: Tensor, selection: Selection, step: SampleStep) -> dict[int, str]:
        if selection is not self._selection:
            self._pack(selection, logits.shape[1])
        lengths = step.lengths_cpu[selection.positions_cpu]
        if not (lengths - step.num_prompt_tokens_cpu[selection.rows_cpu] < self._least_cpu).any():
            return {}
        num_output = selection.take(step.lengths) - step.num_prompt_tokens[selection.rows]
        too_early = (num_output < self._least).index_select(0, self._owners)
        logits.view(-1).index_add_(0, self._flat, torch.where(too_early, _FORBIDDEN, 0.0))
        return {}

    def _pack(self, selection: Selection, vocab_size: int) -> None:
        limits = [self._limits[row] for row in selection.rows_cpu.tolist()]
        self._least_cpu = np.array([least for least, _ in limits], dtype=np.int64)
        self._least = upload(self._least_cpu, self._device)
        tokens = _TokensOfRows(selection, [stop for _, stop in limits])
        self._flat = tokens.flat(vocab_size, self._device)
        self._owners = upload(tokens.owners, self._device)
        self._selection = selection


class BadWords:
    """Forbids the last token of each bad word when the output so far ends with the rest of it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._words: dict[int, _Words] = {}
        self._arrays = _OncePerRequest(_Words.of)
        self._selection: Selection | None = None

    def add_request(self, joined: JoinedRow) -> bool:
        if not joined.sampling.bad_words_token_ids:
            return False
        self._words[joined.row] = self._arrays.of(joined.sampling.bad_words_token_ids)
        return True

    def remove_request(self, row: int) -> None:
        del self._words[row]

    def apply(self, logits: Tensor, selection: Selection, step: SampleStep) -> dict[int, str]:
        if selection is not self._selection:
            self._pack(selection, logits.shape[1])
        rows = selection.rows.index_select(0, self._owners)  # [W] bad words of all rows
        lengths = selection.take(step.lengths).index_select(0, self._owners)
        places = (lengths.index_select(0, self._word_of) - self._distances).clamp_(min=0)  # [P]
        ending = step.token_ids[rows.index_select(0, self._word_of), places]
        differs = (ending != self._prefixes).int()
        num_different = torch.zeros_like(lengths, dtype=torch.int32)
        num_different.index_add_(0, self._word_of, differs)
        is_output = lengths - step.num_prompt_tokens[rows] >= self._prefix_lengths
        bias = torch.where((num_different == 0) & is_output, _FORBIDDEN, 0.0)
        logits.view(-1).index_add_(0, self._flat, bias)
        return {}

    def _pack(self, selection: Selection, vocab_size: int) -> None:
        words = [self._words[row] for row in selection.rows_cpu.tolist()]
        last = _TokensOfRows(selection, [of_row.last_tokens for of_row in words])
        lengths = np.concatenate([of_row.prefix_lengths for of_row in words])
        ends = np.repeat(lengths.cumsum(), lengths)
        # Without padding to the longest: P tokens, those before the last one of all W words.
        self._prefixes = upload(np.concatenate([of_row.prefixes for of_row in words]), self._device)
        self._word_of = upload(np.repeat(np.arange(len(lengths)), lengths), self._device)  # [P]
        self._distances = upload(ends - np.arange(len(ends)), self._device)  # [P] to the new token
        self._prefix_lengths = upload(lengths, self._device)
        self._flat = last.flat(vocab_size, self._device)
        self._owners = upload(last.owners, self._device)
        self._selection = selection


@dataclass(frozen=True, kw_only=True, slots=True)
class _Words:
    """The bad words of a row; the prefix of a word is all but its last token."""

    last_tokens: np.ndarray
    prefix_lengths: np.ndarray
    prefixes: np.ndarray  # one after the other

    @classmethod
    def of(cls, words: Sequence[Sequence[int]]) -> _Words:
        return cls(
            last_tokens=_token_ids([word[-1] for word in words]),
            prefix_lengths=np.array([len(word) - 1 for word in words]),
            prefixes=_token_ids([token for word in words for token in word[:-1]]),
        )


class _OncePerRequest(Generic[Given, Made]):
    """Makes arrays of what a row asked for. The completions of a request, which have the same
    object and join one after the other, share them: a whole vocabulary takes a while."""

    def __init__(self, make: Callable[[Given], Made]) -> None:
        self._make = make
        self._latest: tuple[Given, Made] | None = None

    def of(self, given: Given) -> Made:
        if self._latest is None or self._latest[0] is not given:
            self._latest = given, self._make(given)
        return self._latest[1]


class _TokensOfRows:
    """One list of tokens per selected row, concatenated."""

    def __init__(self, selection: Selection, tokens: Sequence[np.ndarray]) -> None:
        counts = [len(of_row) for of_row in tokens]
        self.owners = np.repeat(np.arange(len(tokens)), counts)  # index into the selection
        self._positions = np.repeat(selection.positions_cpu, counts)
        self._tokens = np.concatenate(tokens)

    def flat(self, vocab_size: int, device: torch.device) -> Tensor:
        return upload(self._positions * vocab_size + self._tokens, device)


def _token_ids(tokens: Sequence[int]) -> np.ndarray:
    return np.array(tokens, dtype=np.int64)


def _bias_arrays(bias: Sequence[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    tokens, values = zip(*bias, strict=True)
    with np.errstate(over="ignore"):  # below float32 is minus infinity, which forbids
        return _token_ids(tokens), np.array(values, dtype=np.float32)
