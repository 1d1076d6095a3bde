"""Result reader: from a step's arrays to confirmed tokens, ends and news for the front end.

A row that nobody watches costs no Python here until it ends.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from quire.request import FinishReason
from quire.scheduler.completion import Completion
from quire.scheduler.row_table import NEVER, Index, RowTable
from quire.scheduler.stop_tokens import StopsOfRows
from quire.step import Refusal, StepPlan, StepResult, TokenLogprobs
from quire.step_output import CompletionDelta

FEW_ROWS = 32


@dataclass(slots=True)
class News:
    """What the result of one step brings."""

    deltas: list[CompletionDelta] = field(default_factory=list)
    ended: list[tuple[Completion, FinishReason]] = field(default_factory=list)
    held: list[tuple[Completion, TokenLogprobs]] = field(default_factory=list)
    num_confirmed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _QuietRows:
    """What reading a result needs to know of rows that decode in one plan after another. It stays
    the same until a row is left."""

    epochs: np.ndarray  # the same object in all plans of the same rows
    num_left: int  # of the row table
    rows: Index
    first_places: Index  # where each row's token ids begin in the table's, as a flat array
    max_len: np.ndarray
    stops: StopsOfRows
    watch_every: np.ndarray | None  # None: nobody watches


class ResultReader:
    """Writes sampled tokens to the row table and finds the rows that ended."""

    def __init__(self, table: RowTable) -> None:
        self.num_tokens = 0  # generated since the start
        self._table = table
        self._token_ids = table.token_ids.reshape(-1)
        self._last_epochs: np.ndarray | None = None
        self._quiet: _QuietRows | None = None

    def read(self, plan: StepPlan, result: StepResult) -> News:
        quiet = self._quiet
        if (
            quiet is not None
            and quiet.epochs is plan.epochs
            and quiet.num_left == self._table.num_left
            and not (result.logprobs or result.prompt_logprobs or result.errors)
        ):
            return self._read_quiet(quiet, result.token_ids)
        news = self._read_any(plan, result)
        is_repeated = self._last_epochs is plan.epochs
        self._quiet = self._quiet_rows(plan) if is_repeated else None
        self._last_epochs = plan.epochs
        return news

    def _quiet_rows(self, plan: StepPlan) -> _QuietRows | None:
        """None where results may bring more than tokens, or a row of the plan was left since."""
        table, rows = self._table, plan.rows.astype(np.intp)
        is_left = table.epoch[rows] != plan.epochs
        if not plan.is_decode or np.count_nonzero(is_left | table.is_special[rows]):
            return None
        watch_every = table.watch_every[rows]
        return _QuietRows(
            epochs=plan.epochs,
            num_left=table.num_left,
            rows=rows,
            first_places=rows * table.token_ids.shape[1],
            max_len=table.max_len[rows],
            stops=table.stops.of(rows),
            watch_every=watch_every if np.count_nonzero(watch_every != NEVER) else None,
        )

    def _read_quiet(self, quiet: _QuietRows, tokens: np.ndarray) -> News:
        news = News(num_confirmed=len(tokens))
        self.num_tokens += len(tokens)
        positions = self._table.num_confirmed.take(quiet.rows)
        self._token_ids[quiet.first_places + positions] = tokens
        known = positions + 1
        self._table.num_confirmed[quiet.rows] = known
        is_stop = quiet.stops.among(tokens)
        ends = is_stop | (known >= quiet.max_len)
        is_news = ends
        if quiet.watch_every is not None:
            is_news = ends | _are_due(quiet.watch_every, known)
        if is_news.any():
            self._tell(quiet.rows, tokens, is_stop, ends, is_news, news)
        return news

    def _read_any(self, plan: StepPlan, result: StepResult) -> News:
        table, news = self._table, News()
        rows = plan.rows.astype(np.intp)
        is_current = table.epoch[rows] == plan.epochs
        for row in rows[is_current].tolist() if result.prompt_logprobs else ():
            if row in result.prompt_logprobs:
                self._completion(row).prompt_logprobs.append(result.prompt_logprobs[row])
        is_current = is_current[plan.samples]
        rows, tokens = rows[plan.samples][is_current], result.token_ids[is_current]
        if result.errors:
            rows, tokens = self._end_failed(rows, tokens, result.errors, news)
        news.num_confirmed = len(rows)
        self.num_tokens += len(rows)
        is_special = table.is_special[rows]
        if np.count_nonzero(is_special):
            self._read_special(rows[is_special].tolist(), result, news)
            is_chosen_here = ~table.is_beam[rows]
            rows, tokens = rows[is_chosen_here], tokens[is_chosen_here]
        self._confirm(rows, tokens, news)
        return news

    def _confirm(self, rows: Index, tokens: np.ndarray, news: News) -> None:
        table = self._table
        positions = table.num_confirmed[rows]
        table.token_ids[rows, positions] = tokens
        known = positions + 1
        table.num_confirmed[rows] = known
        is_stop = table.stops.of(rows).among(tokens)
        ends = is_stop | (known >= table.max_len[rows])
        is_news = ends | _are_due(table.watch_every[rows], known)
        self._tell(rows, tokens, is_stop, ends, is_news, news)

    def _tell(
        self,
        rows: Index,
        tokens: np.ndarray,
        is_stop: np.ndarray,
        ends: np.ndarray,
        is_news: np.ndarray,
        news: News,
    ) -> None:
        """Add the deltas of rows with news to ``news``, and their ends. All arrays are [R]."""
        for index in np.flatnonzero(is_news).tolist():
            completion = self._completion(int(rows[index]))
            reason = None
            if ends[index]:
                reason = FinishReason.STOP if is_stop[index] else FinishReason.LENGTH
                news.ended.append((completion, reason))
            stop_reason = int(tokens[index]) if is_stop[index] else None
            news.deltas.append(self._delta(completion, int(tokens[index]), reason, stop_reason))

    def _read_special(self, rows: list[int], result: StepResult, news: News) -> None:
        """Read the rows that have more to tell than a token: a first token, log-probabilities, the
        candidates of a beam."""
        for row in rows:
            completion = self._completion(row)
            if not completion.first_token_time:
                completion.first_token_time = time.time()
                wants_more = completion.sampling.num_logprobs is not None or completion.is_beam
                self._table.is_special[row] = wants_more
            logprobs = result.logprobs.get(row)
            if logprobs is None:
                continue
            if completion.is_beam:
                completion.is_held = True
                news.held.append((completion, logprobs))
            else:
                completion.logprobs.append(logprobs)

    def _end_failed(
        self, rows: Index, tokens: np.ndarray, errors: dict[int, str], news: News
    ) -> tuple[Index, np.ndarray]:
        """End the rows that have an error; returns the others with their tokens."""
        has_failed = np.isin(rows, list(errors))
        for row in rows[has_failed].tolist():
            completion = self._completion(row)
            news.ended.append((completion, FinishReason.ERROR))
            error = errors[row]
            delta = self.error_delta(completion, str(error), is_refusal=isinstance(error, Refusal))
            news.deltas.append(delta)
        return rows[~has_failed], tokens[~has_failed]

    def _delta(
        self,
        completion: Completion,
        token: int,
        reason: FinishReason | None,
        stop_reason: int | None,
    ) -> CompletionDelta:
        """A delta with the new token of a watched completion, or all tokens not told yet of another
        one."""
        new = [token] if completion.is_watched else self._take_untold(completion)
        is_news = completion.num_preemptions > completion.num_told_preemptions
        completion.num_told_preemptions = completion.num_preemptions
        return CompletionDelta(
            request_id=completion.request.request_id,
            serial=completion.request.serial,
            index=completion.index,
            new_token_ids=new,
            finish_reason=reason,
            stop_reason=stop_reason,
            logprobs=completion.take_logprobs(),
            prompt_logprobs=completion.take_prompt_logprobs(),
            num_cached_tokens=completion.num_cached_tokens,
            timing=completion.timing() if reason or is_news else None,
        )

    def _take_untold(self, completion: Completion) -> list[int]:
        """The confirmed tokens of an unwatched completion that the front end does not know yet."""
        known = completion.token_ids
        if completion.row >= 0:
            known = self._table.confirmed_tokens(completion.row)
        new = known[max(completion.num_told, completion.num_prompt_tokens) :]
        completion.num_told = len(known)
        tokens: list[int] = new.tolist()
        return tokens

    def abort_delta(self, completion: Completion) -> CompletionDelta:
        """The last delta of a completion that is aborted, whether it runs or waits."""
        return CompletionDelta(
            request_id=completion.request.request_id,
            serial=completion.request.serial,
            index=completion.index,
            new_token_ids=[] if completion.is_watched else self._take_untold(completion),
            finish_reason=FinishReason.ABORT,
            logprobs=completion.take_logprobs(),
            prompt_logprobs=(
                completion.take_prompt_logprobs() if completion.has_all_prompt_logprobs else None
            ),
            num_cached_tokens=completion.num_cached_tokens,
            timing=completion.timing(),
        )

    def error_delta(
        self, completion: Completion, message: str, *, is_refusal: bool
    ) -> CompletionDelta:
        return CompletionDelta(
            request_id=completion.request.request_id,
            serial=completion.request.serial,
            index=completion.index,
            new_token_ids=[],
            finish_reason=FinishReason.ERROR,
            error=message,
            is_refusal=is_refusal,
            timing=completion.timing(),
        )

    def _completion(self, row: int) -> Completion:
        completion = self._table.completions[row]
        assert completion is not None, "a current row has an owner"
        return completion


def _are_due(watch_every: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which rows, with ``known`` tokens, the front end is told of now.

    Of few rows it is told every token: that is cheap, and a stop string is found at once.
    """
    if len(known) < FEW_ROWS:
        return watch_every != NEVER
    return known % watch_every == 0
