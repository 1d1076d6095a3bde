"""Processors that touch given tokens of a row: bias, allowed tokens, minimum length, bad words.

Each keeps what a row asked for as arrays. When a step's rows change, it packs those of its rows
into flat index tensors, so that the steps in between take a handful of tensor operations. A flat
index is ``position * V + token``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from quire.sampling.logits_processor import SampleStep, Selection, upload
from quire.step import JoinedRow

_FORBIDDEN = -torch.inf


class LogitBias:
    """Adds a number to the logits of given tokens."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._bias: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # tokens, values
        self._selection: Selection | None = None

    def add_request(self, joined: JoinedRow) -> bool:
        if not joined.sampling.logit_bias:
            return False
        tokens, values = zip(*joined.sampling.logit_bias, strict=True)
        self._bias[joined.row] = _token_ids(tokens), np.array(values, dtype=np.float32)
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
        self._selection: Selection | None = None

    def add_request(self, joined: JoinedRow) -> bool:
        if not joined.sampling.allowed_token_ids:
            return False
        self._allowed[joined.row] = _token_ids(joined.sampling.allowed_token_ids)
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
    """Forbids the stop tokens until a row has produced its least number of tokens."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._limits: dict[int, tuple[int, np.ndarray]] = {}  # least output length, stop tokens
        self._selection: Selection | None = None

    def add_request(self, joined: JoinedRow) -> bool:
        sampling = joined.sampling
        is_constrained = joined.constraint.grammar is not None  # then its mask does this
        if sampling.min_tokens == 0 or not sampling.stop_token_ids or is_constrained:
            return False
        self._limits[joined.row] = sampling.min_tokens, _token_ids(sampling.stop_token_ids)
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
        self._words: dict[int, tuple[tuple[int, ...], ...]] = {}
        self._selection: Selection | None = None

    def add_request(self, joined: JoinedRow) -> bool:
        if not joined.sampling.bad_words_token_ids:
            return False
        self._words[joined.row] = joined.sampling.bad_words_token_ids
        return True

    def remove_request(self, row: int) -> None:
        del self._words[row]

    def apply(self, logits: Tensor, selection: Selection, step: SampleStep) -> dict[int, str]:
        if selection is not self._selection:
            self._pack(selection, logits.shape[1])
        rows = selection.rows.index_select(0, self._owners)  # [W] bad words of all rows
        lengths = selection.take(step.lengths).index_select(0, self._owners)
        places = (lengths.unsqueeze(1) + self._offsets).clamp_(min=0)
        ending = step.token_ids[rows.unsqueeze(1), places]
        same = ((ending == self._prefixes) | (self._prefixes < 0)).all(dim=1)
        is_output = lengths - step.num_prompt_tokens[rows] >= self._prefix_lengths
        bias = torch.where(same & is_output, _FORBIDDEN, 0.0)
        logits.view(-1).index_add_(0, self._flat, bias)
        return {}

    def _pack(self, selection: Selection, vocab_size: int) -> None:
        words = [self._words[row] for row in selection.rows_cpu.tolist()]
        last_tokens = [_token_ids([word[-1] for word in of_row]) for of_row in words]
        last = _TokensOfRows(selection, last_tokens)
        prefixes = [word[:-1] for of_row in words for word in of_row]
        longest = max(map(len, prefixes))
        # Aligned at their ends: column j is compared with token `longest - j` before the new one.
        table = np.full((len(prefixes), longest), -1, dtype=np.int32)
        for line, prefix in zip(table, prefixes, strict=True):
            line[longest - len(prefix) :] = prefix
        self._prefixes = upload(table, self._device)
        self._prefix_lengths = upload(np.array([len(one) for one in prefixes]), self._device)
        self._offsets = torch.arange(-longest, 0, device=self._device)
        self._flat = last.flat(vocab_size, self._device)
        self._owners = upload(last.owners, self._device)
        self._selection = selection


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
