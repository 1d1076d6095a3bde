"""The sampler: from logits to tokens, for the rows of a step.

The host knows from what rows asked for when they joined which parts have to run: a step of greedy
rows is one argmax. The order is that of `transformers` and vLLM:

1. raw log-probabilities (of the logits as the model gave them)
2. allowed tokens, bad words, minimum length, bias; then penalties; then users' own functions; then
   grammars
3. temperature; here "processed" log-probabilities are taken
4. min_p, then top_k, then top_p of what is left (as `kernels.reference.sampling.choose` defines it)
5. greedy rows take the best token, the others draw one by a number from their seed and position

For rows that need no host, `sample_on_device` does the same and can be captured in a graph;
`graph_kind` tells which rows those are. Nothing here waits for the device. Knows nothing about
requests beyond their row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from quire.sampling.choice import DeviceSample, MakeChoice
from quire.sampling.grammar_masks import GrammarMasks, MaskSource
from quire.sampling.logits_processor import LogitsProcessor, SampleStep, Selection
from quire.sampling.logprobs import LogprobTensors
from quire.sampling.parameters import MASKABLE, LogprobGroup, RowParameters, SampleKind
from quire.sampling.selection import choice_for
from quire.sampling.token_bias import AllowedTokens, BadWords, LogitBias, MinTokens
from quire.sampling.user_processors import UserProcessors
from quire.step import JoinedRow, Refusal
from quire.structured import FREE

__all__ = ["DeviceSample", "RowLogprobs", "SampleKind", "SampleOutput", "Sampler"]

NO_TOKEN_LEFT = Refusal(
    "what the request forbids (bad_words, logit_bias, min_tokens, logits_processors) left no token "
    "that its grammar allows, or its allowed_token_ids"
)
NO_NUMBERS = "the model's logits are not numbers (NaN)"
_FORBIDS_BELOW = -1e30  # a lower bias is -inf in float32, or a penalty may make it so


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
    errors: dict[int, str] = field(default_factory=dict)  # row -> why its token means nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class _Parts:
    """What sampling given rows takes; valid until the rows or their requests change."""

    rows_cpu: np.ndarray
    kind: SampleKind | None
    processors: tuple[tuple[LogitsProcessor, Selection], ...]
    logprobs: tuple[LogprobGroup, ...]
    is_changed: tuple[bool, ...]  # for each of `logprobs`: a processor changes rows of the group
    contested: Selection | None  # rows that may be left without a token


class Sampler:
    """Holds what the rows asked for; how tokens are chosen is its `Choice`, made for the device."""

    def __init__(
        self,
        *,
        max_rows: int,
        vocab_size: int,
        device: torch.device,
        token_ids: Tensor,
        masks: MaskSource,
        make_choice: MakeChoice | None = None,
    ) -> None:
        """``token_ids`` [rows, width] int32: prompt and output of all rows, owned by the worker."""
        self._device = device
        self._vocab_size = vocab_size
        self._token_ids = token_ids
        self._parameters = RowParameters(max_rows, device)
        make_choice = make_choice or choice_for(device)
        self._choice = make_choice(self._parameters, vocab_size, token_ids)
        self._penalties = self._choice.penalties()
        self._processors: tuple[LogitsProcessor, ...] = (
            AllowedTokens(device),
            BadWords(device),
            MinTokens(device),
            LogitBias(device),
            self._penalties,
            UserProcessors(device),
            GrammarMasks(masks, self._choice.forbid),
        )
        # [processors]
        self._is_masks = np.array([isinstance(one, GrammarMasks) for one in self._processors])
        in_graphs = (GrammarMasks, MinTokens, type(self._penalties))  # as far as `kind_of` says
        self._needs_host = np.array([not isinstance(one, in_graphs) for one in self._processors])
        # [processors, rows]: whether the row asked for what the processor does
        self._concerns = np.zeros((len(self._processors), max_rows + 1), dtype=np.bool_)
        self._may_forbid_all = np.zeros(max_rows + 1, dtype=np.bool_)  # [rows]
        self._parts: _Parts | None = None

    def join(self, joined: Sequence[JoinedRow]) -> None:
        """Note what completions that take rows ask for."""
        self._parameters.join(joined)
        for new in joined:
            self._concerns[:, new.row] = [one.add_request(new) for one in self._processors]
            self._may_forbid_all[new.row] = _may_forbid_all(new, self._vocab_size)
        self._parts = None

    def leave(self, row: int) -> None:
        """Forget a completion that gives up its row."""
        for processor, concerns in zip(self._processors, self._concerns[:, row], strict=True):
            if concerns:
                processor.remove_request(row)
        self._concerns[:, row] = False
        self._parts = None

    def graph_kind(self, rows_cpu: np.ndarray) -> SampleKind | None:
        """How `sample_on_device` samples these rows; None where only `sample` can."""
        return self._parts_of(rows_cpu).kind

    def sample_on_device(
        self, kind: SampleKind, logits: Tensor, rows: Tensor, lengths: Tensor
    ) -> DeviceSample:
        """Choose the next tokens of R rows by what the device knows of them.

        ``logits`` [R, V] of any float dtype; those of early tokens may become -inf. ``rows`` and
        ``lengths`` [R] int64.
        """
        return self._choice.on_device[kind](logits, rows, lengths)

    def logprobs_of(self, sample: DeviceSample, rows_cpu: np.ndarray) -> tuple[RowLogprobs, ...]:
        """The log-probabilities of the first S lines of ``sample``, which belong to ``rows_cpu``
        [S], in the form of `SampleOutput.logprobs`."""
        if sample.logprobs is None:
            return ()
        return tuple(
            RowLogprobs(
                rows_cpu=group.selection.rows_cpu,
                tensors=sample.logprobs.take(group.selection.positions).cut(group.count),
            )
            for group in self._parts_of(rows_cpu).logprobs
        )

    def sample(
        self,
        logits: Tensor,
        rows: Tensor,
        rows_cpu: np.ndarray,
        lengths: Tensor,
        lengths_cpu: np.ndarray,
    ) -> SampleOutput:
        """Choose the next tokens of S rows; ``logits`` [S, V] float32 may be overwritten.

        ``rows`` [S] int64 and ``rows_cpu`` say which row each line of ``logits`` belongs to, and
        ``lengths`` how many tokens it has before the new one.
        """
        parts = self._parts_of(rows_cpu)
        step = SampleStep(
            rows=rows,
            lengths=lengths,
            lengths_cpu=lengths_cpu,
            token_ids=self._token_ids,
            num_prompt_tokens=self._parameters.num_prompt_tokens_on_device,
            num_prompt_tokens_cpu=self._parameters.num_prompt_tokens,
        )
        raw = [
            _raw_logits(logits, group, is_changed)
            for group, is_changed in zip(parts.logprobs, parts.is_changed, strict=True)
        ]
        errors: dict[int, str] = {}
        for processor, selection in parts.processors:
            errors.update(processor.apply(logits, selection, step))
        if parts.contested is not None:
            errors = {**_rows_without_tokens(logits, parts.contested), **errors}
        token_ids = self._choice.choose(logits, rows, lengths, parts.rows_cpu)
        logprobs = tuple(
            self._logprobs(group, saved, logits, token_ids)
            for group, saved in zip(parts.logprobs, raw, strict=True)
        )
        return SampleOutput(token_ids=token_ids, logprobs=logprobs, errors=errors)

    def _logprobs(
        self, group: LogprobGroup, raw: Tensor | None, logits: Tensor, token_ids: Tensor
    ) -> RowLogprobs:
        selection = group.selection
        source = selection.take(logits) if raw is None else raw
        if group.is_processed:
            source = source / self._parameters.divisors(selection.rows)
        tensors = self._choice.token_logprobs(source, selection.take(token_ids), group.count)
        return RowLogprobs(rows_cpu=selection.rows_cpu, tensors=tensors)

    def _parts_of(self, rows_cpu: np.ndarray) -> _Parts:
        if self._parts is None or not np.array_equal(self._parts.rows_cpu, rows_cpu):
            self._parts = self._arrange(rows_cpu.copy())
        return self._parts

    def _kind_of(self, rows_cpu: np.ndarray, is_masked: bool) -> SampleKind | None:
        kind = self._parameters.kind_of(rows_cpu)
        return None if is_masked and kind not in MASKABLE else kind

    def _arrange(self, rows_cpu: np.ndarray) -> _Parts:
        """Decide on the host what these rows need."""
        concerns = self._concerns[:, rows_cpu]
        logprobs = self._parameters.logprob_groups(rows_cpu)
        is_changed = np.logical_or.reduce(concerns)
        needs_host = concerns[self._needs_host].any()
        is_masked = concerns[self._is_masks].any(axis=0)
        contested = self._may_forbid_all[rows_cpu]
        return _Parts(
            rows_cpu=rows_cpu,
            kind=None if needs_host else self._kind_of(rows_cpu, bool(is_masked.any())),
            processors=tuple(
                (processor, Selection.of(mask, rows_cpu, self._device))
                for processor, mask in zip(self._processors, concerns, strict=True)
                if mask.any()
            ),
            logprobs=logprobs,
            contested=(
                Selection.of(contested, rows_cpu, self._device) if contested.any() else None
            ),
            is_changed=tuple(
                bool(is_changed[group.selection.positions_cpu].any()) for group in logprobs
            ),
        )


def _may_forbid_all(joined: JoinedRow, vocab_size: int) -> bool:
    """Whether all that a row asked for may together forbid every token.

    Requests in which one part alone does so were refused (`row_sampling`), but for user functions.
    """
    sampling = joined.sampling
    num_forbidden = len(sampling.bad_words_token_ids)
    num_forbidden += sum(bias < _FORBIDS_BELOW for _, bias in sampling.logit_bias)
    num_forbidden += len(sampling.too_early_ids)
    if sampling.runs_user_code:
        return True
    if joined.constraint is not FREE:
        return num_forbidden > 0 or bool(sampling.allowed_token_ids)
    return num_forbidden >= (len(sampling.allowed_token_ids) or vocab_size)


def _rows_without_tokens(logits: Tensor, selection: Selection) -> dict[int, str]:
    """The selected rows in which no token is allowed, with the reason. Without this check they
    would get an arbitrary one."""
    own = selection.take(logits)
    is_dead = (own > -torch.inf).any(dim=1).logical_not_()
    is_broken = is_dead & own.isnan().any(dim=1)
    both = torch.stack((is_dead, is_broken)).cpu().numpy()  # sync: rare, and never in a graph
    dead, broken = (selection.rows_cpu[state].tolist() for state in both)
    return dict.fromkeys(dead, NO_TOKEN_LEFT) | dict.fromkeys(broken, NO_NUMBERS)


def _raw_logits(logits: Tensor, group: LogprobGroup, is_changed: bool) -> Tensor | None:
    """A copy of the group's logits, if raw ones are wanted and a processor is about to change
    them."""
    if group.is_processed or not is_changed:
        return None
    return logits.index_select(0, group.selection.positions)
