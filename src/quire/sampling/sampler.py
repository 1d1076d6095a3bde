"""The sampler: from logits to tokens, for the rows of a step.

Which parts run is known on the host from what rows asked for when they joined: a step of greedy
rows is one argmax. Order, as in `transformers` and vLLM:

1. raw log-probabilities (of the logits as the model gave them)
2. allowed tokens, bad words, minimum length, bias; then penalties; then users' own functions
3. temperature; here "processed" log-probabilities are taken
4. min_p, then top_k, then top_p of what is left (`ops.thresholds`)
5. greedy rows take the best token, the others draw one by a number of their seed and position

Nothing here waits for the device. Knows nothing about requests beyond their row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from quire.sampling import ops
from quire.sampling.logits_processor import LogitsProcessor, SampleStep, Selection
from quire.sampling.logprobs import LogprobTensors, token_logprobs
from quire.sampling.penalties import Penalties
from quire.sampling.random import uniform, wrap_seed
from quire.sampling.token_bias import AllowedTokens, BadWords, LogitBias, MinTokens
from quire.sampling.user_processors import UserProcessors
from quire.step import JoinedRow, TokenLogprobs

_BUILT_IN = (AllowedTokens, BadWords, MinTokens, LogitBias, Penalties, UserProcessors)
_NO_LOGPROBS = -2  # in the column of how many; -1 is all
_CPU_BLOCK_BYTES = 4 * 2**20  # weights of a few rows stay in the cache between operations


@dataclass(frozen=True, kw_only=True, slots=True)
class RowLogprobs:
    """Log-probabilities of the new tokens of N rows that asked for equally many."""

    rows_cpu: np.ndarray  # [N]
    tensors: LogprobTensors


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleOutput:
    """The S new tokens, on the device."""

    token_ids: Tensor  # [S] int64
    logprobs: tuple[RowLogprobs, ...] = ()
    errors: dict[int, str] = field(default_factory=dict)  # row -> why; its token means nothing

    def logprobs_to_host(self) -> dict[int, TokenLogprobs]:
        """Row -> the log-probabilities of its one new token."""
        found: dict[int, TokenLogprobs] = {}
        for group in self.logprobs:
            host = group.tensors.to_host()  # sync: rows that asked for log-probabilities
            for index, row in enumerate(group.rows_cpu.tolist()):
                found[row] = TokenLogprobs(
                    token_ids=host.token_ids[index : index + 1],
                    logprobs=host.logprobs[index : index + 1],
                    ranks=host.ranks[index : index + 1],
                )
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Draw:
    """Rows that draw at random, with or without filters."""

    selection: Selection
    is_filtered: bool
    max_top_k: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _LogprobGroup:
    """Rows that want equally many log-probabilities of the same kind."""

    selection: Selection
    count: int
    is_processed: bool
    is_changed: bool  # a processor works on some of these rows


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parts:
    """What a step over given rows has to do; valid until the rows or their requests change."""

    rows_cpu: np.ndarray
    has_greedy: bool
    draws: tuple[_Draw, ...]
    processors: tuple[tuple[LogitsProcessor, Selection], ...]
    logprobs: tuple[_LogprobGroup, ...]


class Sampler:
    """Holds the rows' parameters as columns, on the host to decide and on the device to compute."""

    def __init__(
        self, *, max_rows: int, vocab_size: int, device: torch.device, token_ids: Tensor
    ) -> None:
        """``token_ids`` [max_rows, max_len] int32 is the worker's, prompt and output; read only."""
        self._device = device
        self._token_ids = token_ids
        self._thresholds = ops.thresholds_for(device)
        fits_cache = max(1, _CPU_BLOCK_BYTES // (4 * vocab_size))
        self._rows_at_once = fits_cache if device.type == "cpu" else max_rows
        # Per row on the device, written in one upload when it joins.
        self._reals = torch.ones(max_rows, 3, dtype=torch.float64, device=device)
        self._integers = torch.zeros(max_rows, 3, dtype=torch.int64, device=device)
        # Per row on the host.
        self._num_prompt_tokens = np.zeros(max_rows, dtype=np.int64)
        self._is_random = np.zeros(max_rows, dtype=np.bool_)
        self._is_filtered = np.zeros(max_rows, dtype=np.bool_)
        self._top_k = np.zeros(max_rows, dtype=np.int64)
        self._num_logprobs = np.full(max_rows, _NO_LOGPROBS, dtype=np.int64)
        self._is_processed = np.zeros(max_rows, dtype=np.bool_)
        self._processors: tuple[LogitsProcessor, ...] = tuple(kind(device) for kind in _BUILT_IN)
        self._concerns = np.zeros((len(self._processors), max_rows), dtype=np.bool_)
        self._parts: _Parts | None = None

    def join(self, joined: Sequence[JoinedRow]) -> None:
        """Completions take rows; one upload for all of them."""
        for new in joined:
            self._join_on_host(new)
        rows = torch.tensor([new.row for new in joined])
        reals = torch.tensor(
            [
                [new.sampling.temperature or 1.0, new.sampling.top_p, new.sampling.min_p]
                for new in joined
            ],
            dtype=torch.float64,
        )
        integers = torch.tensor(
            [
                [wrap_seed(new.sampling.seed), new.sampling.top_k, new.num_prompt_tokens]
                for new in joined
            ]
        )
        places, reals, integers = (
            tensor.to(self._device, non_blocking=True) for tensor in (rows, reals, integers)
        )
        self._reals.index_copy_(0, places, reals)
        self._integers.index_copy_(0, places, integers)
        self._parts = None

    def _join_on_host(self, joined: JoinedRow) -> None:
        row, sampling = joined.row, joined.sampling
        self._num_prompt_tokens[row] = joined.num_prompt_tokens
        self._is_random[row] = not sampling.is_greedy
        self._is_filtered[row] = sampling.top_k > 0 or sampling.top_p < 1.0 or sampling.min_p > 0.0
        self._top_k[row] = sampling.top_k
        wanted = sampling.num_logprobs
        self._num_logprobs[row] = _NO_LOGPROBS if wanted is None else wanted
        self._is_processed[row] = sampling.processed_logprobs
        for index, processor in enumerate(self._processors):
            self._concerns[index, row] = processor.add_request(joined)

    def leave(self, row: int) -> None:
        """A completion gives its row up."""
        for processor, concerns in zip(self._processors, self._concerns[:, row], strict=True):
            if concerns:
                processor.remove_request(row)
        self._concerns[:, row] = False
        self._parts = None

    def takes_the_best(self, rows_cpu: np.ndarray) -> bool:
        """Whether ``sample`` of these rows is an argmax and nothing else."""
        parts = self._parts_of(rows_cpu)
        return not (parts.draws or parts.processors or parts.logprobs)

    def sample(
        self,
        logits: Tensor,
        rows: Tensor,
        rows_cpu: np.ndarray,
        lengths: Tensor,
        lengths_cpu: np.ndarray,
    ) -> SampleOutput:
        """Choose the next token of S rows; ``logits`` [S, V] float32 may be overwritten.

        ``rows`` [S] int64 and ``rows_cpu`` say which row each line of ``logits`` belongs to, and
        ``lengths`` how many tokens it has before the new one.
        """
        parts = self._parts_of(rows_cpu)
        step = SampleStep(
            lengths=lengths,
            lengths_cpu=lengths_cpu,
            token_ids=self._token_ids,
            num_prompt_tokens=self._integers[:, 2],
            num_prompt_tokens_cpu=self._num_prompt_tokens,
        )
        raw = [_raw_logits(logits, group) for group in parts.logprobs]
        errors: dict[int, str] = {}
        for processor, selection in parts.processors:
            errors.update(processor.apply(logits, selection, step))
        token_ids = self._choose(logits, rows, lengths, parts)
        logprobs = tuple(
            self._logprobs(group, saved, logits, token_ids)
            for group, saved in zip(parts.logprobs, raw, strict=True)
        )
        return SampleOutput(token_ids=token_ids, logprobs=logprobs, errors=errors)

    def _choose(self, logits: Tensor, rows: Tensor, lengths: Tensor, parts: _Parts) -> Tensor:
        """Greedy for all rows if any is greedy, then the others' drawn tokens in their places."""
        if parts.has_greedy:
            chosen = ops.argmax(logits)
        else:
            chosen = torch.empty(len(logits), dtype=torch.int64, device=self._device)
        if not parts.draws:
            return chosen
        seeds = self._integers[:, 0].index_select(0, rows)
        uniforms = uniform(seeds, lengths)
        for draw in parts.draws:
            positions = draw.selection.positions
            drawn = self._draw(logits, uniforms.index_select(0, positions), draw)
            chosen.index_copy_(0, positions, drawn)
        return chosen

    def _draw(self, logits: Tensor, uniforms: Tensor, draw: _Draw) -> Tensor:
        """One random token for each selected row, a block of rows at a time."""
        selection = draw.selection
        reals = self._reals.index_select(0, selection.rows)
        temperature, top_p, min_p = reals[:, 0].float(), reals[:, 1], reals[:, 2].float()
        top_k = self._integers[:, 1].index_select(0, selection.rows)
        drawn = []
        for block in ops.row_blocks(len(selection), self._rows_at_once):
            mine = selection.positions[block]
            lines = logits[block] if selection.is_whole else logits.index_select(0, mine)
            weights = ops.to_weights(lines, temperature[block])
            if draw.is_filtered:
                least = self._thresholds(
                    weights, top_k[block], top_p[block], min_p[block], draw.max_top_k
                )
                weights = torch.where(weights >= least.unsqueeze(1), weights, 0.0)
            drawn.append(ops.draw(weights, uniforms[block]))
        return torch.cat(drawn)

    def _logprobs(
        self, group: _LogprobGroup, raw: Tensor | None, logits: Tensor, token_ids: Tensor
    ) -> RowLogprobs:
        selection = group.selection
        source = selection.take(logits) if raw is None else raw
        if group.is_processed:
            temperature = self._reals[:, 0].index_select(0, selection.rows).float()
            source = source / temperature.unsqueeze(1)
        tensors = token_logprobs(source, selection.take(token_ids), group.count)
        return RowLogprobs(rows_cpu=selection.rows_cpu, tensors=tensors)

    def _parts_of(self, rows_cpu: np.ndarray) -> _Parts:
        if self._parts is None or not np.array_equal(self._parts.rows_cpu, rows_cpu):
            self._parts = self._arrange(rows_cpu.copy())
        return self._parts

    def _arrange(self, rows_cpu: np.ndarray) -> _Parts:
        """Decide on the host what these rows need."""
        is_random, is_filtered = self._is_random[rows_cpu], self._is_filtered[rows_cpu]
        draws = tuple(
            _Draw(
                selection=Selection.of(mask, rows_cpu, self._device),
                is_filtered=filtered,
                max_top_k=int(self._top_k[rows_cpu[mask]].max()),
            )
            for filtered in (False, True)
            if (mask := is_random & (is_filtered == filtered)).any()
        )
        concerns = self._concerns[:, rows_cpu]
        processors = tuple(
            (processor, Selection.of(mask, rows_cpu, self._device))
            for processor, mask in zip(self._processors, concerns, strict=True)
            if mask.any()
        )
        return _Parts(
            rows_cpu=rows_cpu,
            has_greedy=not is_random.all(),
            draws=draws,
            processors=processors,
            logprobs=self._arrange_logprobs(rows_cpu, np.logical_or.reduce(concerns)),
        )

    def _arrange_logprobs(
        self, rows_cpu: np.ndarray, is_changed: np.ndarray
    ) -> tuple[_LogprobGroup, ...]:
        counts, processed = self._num_logprobs[rows_cpu], self._is_processed[rows_cpu]
        kinds = dict.fromkeys(zip(counts.tolist(), processed.tolist(), strict=True))
        groups = []
        for count, is_processed in kinds:
            if count != _NO_LOGPROBS:
                mask = (counts == count) & (processed == is_processed)
                groups.append(
                    _LogprobGroup(
                        selection=Selection.of(mask, rows_cpu, self._device),
                        count=count,
                        is_processed=is_processed,
                        is_changed=bool((is_changed & mask).any()),
                    )
                )
        return tuple(groups)


def _raw_logits(logits: Tensor, group: _LogprobGroup) -> Tensor | None:
    """A copy of the logits that processors are about to change and whose raw values are wanted."""
    if group.is_processed or not group.is_changed:
        return None
    return logits.index_select(0, group.selection.positions)
