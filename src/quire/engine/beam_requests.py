"""Beam requests: applies the choices of beam search to running completions.

``beam_search`` decides which beams live on; blocks and rows are the scheduler's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from msgspec import structs

from quire.engine.beam_search import BeamChoice, BeamState
from quire.request import EngineRequest, FinishReason
from quire.scheduler.completion import Completion
from quire.scheduler.scheduler import Scheduler
from quire.step import TokenLogprobs
from quire.step_output import CompletionDelta, CompletionTiming


@dataclass(slots=True)
class _Search:
    """One request's beams, in the order of the search's own list."""

    request: EngineRequest
    state: BeamState
    beams: list[Completion] = field(default_factory=list)  # empty until the prompt's first result
    results: dict[Completion, TokenLogprobs] = field(default_factory=dict)
    num_forked: int = 0
    num_preemptions: int = 0  # of beams that have ended

    def timed(self, timing: CompletionTiming | None) -> CompletionTiming | None:
        """The timing of one beam, with the preemptions of the whole search."""
        if timing is None or not self.beams:
            return timing
        num_preemptions = self.num_preemptions + sum(one.num_preemptions for one in self.beams)
        return replace(timing, num_preemptions=num_preemptions)


class BeamRequests:
    """All beam searches of an engine. A search moves on when every beam of it has a result, so its
    beams need not run in the same step."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._searches: dict[str, _Search] = {}

    def add(self, request: EngineRequest) -> None:
        assert request.beam is not None
        state = BeamState(
            request.beam,
            max_tokens=request.max_tokens,
            stop_token_ids=request.sampling.stop_token_ids,
        )
        self._searches[request.request_id] = _Search(request, state)

    def forget(self, request_ids: Iterable[str]) -> list[EngineRequest]:
        """Drop the searches of these requests and abort their beams; returns the requests that had
        one."""
        found = [self._searches.pop(one) for one in request_ids if one in self._searches]
        self._scheduler.abort([search.request.request_id for search in found])
        return [search.request for search in found]

    def end_failed(self, deltas: list[CompletionDelta]) -> list[CompletionDelta]:
        """Replace the deltas of failed beams: the whole search ends, with one error per requested
        continuation. Other deltas pass unchanged."""
        told: list[CompletionDelta] = []
        failed: dict[str, CompletionDelta] = {}
        for delta in deltas:
            search = self._searches.get(delta.request_id)
            if search is None or search.request.serial != delta.serial:
                told.append(delta)
            else:
                failed[delta.request_id] = delta
        for request_id, delta in failed.items():
            search = self._searches[request_id]
            end = structs.replace(delta, timing=search.timed(delta.timing))
            told += [_at(index, end) for index in range(search.request.num_completions)]
        self.forget(failed)
        return told

    def advance(self, held: list[tuple[Completion, TokenLogprobs]]) -> list[CompletionDelta]:
        """Take the candidates of held beams; returns the final deltas of searches that have
        ended."""
        deltas: list[CompletionDelta] = []
        for completion, candidates in held:
            search = self._searches.get(completion.request.request_id)
            if search is None:
                continue
            search.beams = search.beams or [completion]
            search.results[completion] = candidates
            if len(search.results) == len(search.beams):
                deltas += self._advance(search)
        return deltas

    def _advance(self, search: _Search) -> list[CompletionDelta]:
        results = [search.results[beam] for beam in search.beams]
        # column 0 is the token the sampler took, which the best candidates repeat
        candidates = [(r.token_ids[0, 1:], r.logprobs[0, 1:]) for r in results]
        search.results.clear()
        advance = search.state.advance(candidates)
        if not advance.done:
            self._continue(search, advance.beams)
            return []
        return self._end(search)

    def _end(self, search: _Search) -> list[CompletionDelta]:
        """The final deltas of a search; fewer than asked for if too few tokens are allowed."""
        request, first = search.request, search.beams[0]
        end = CompletionDelta(
            request_id=request.request_id,
            serial=request.serial,
            index=0,
            new_token_ids=[],
            num_cached_tokens=first.num_cached_tokens,
            timing=search.timed(first.timing()),
        )
        hypotheses = search.state.hypotheses()
        if not hypotheses:
            error = "beam search found no continuation: every next token is forbidden"
            failed = structs.replace(
                end, finish_reason=FinishReason.ERROR, error=error, is_refusal=True
            )
            return self.end_failed([failed])
        self.forget([request.request_id])
        return [
            structs.replace(
                _at(index, end),
                new_token_ids=hypothesis.token_ids,
                finish_reason=hypothesis.finish_reason,
                score=hypothesis.score,
                cumulative_logprob=hypothesis.sum_logprob,
            )
            for index, hypothesis in enumerate(hypotheses)
        ]

    def _continue(self, search: _Search, choices: list[BeamChoice]) -> None:
        """Give each chosen beam a row. Forks come first, while every parent still has its blocks; a
        parent's last child takes its row over, and parents without children end."""
        parents = search.beams
        heirs = {choice.parent: index for index, choice in enumerate(choices)}
        beams: list[Completion] = []
        for index, choice in enumerate(choices):
            parent = parents[choice.parent]
            if heirs[choice.parent] == index:
                beams.append(parent)
            else:
                search.num_forked += 1
                beams.append(self._scheduler.fork(parent, search.num_forked, choice.token_id))
        for place, heir in heirs.items():
            self._scheduler.extend(parents[place], choices[heir].token_id)
        for index, parent_beam in enumerate(parents):
            if index not in heirs:
                search.num_preemptions += parent_beam.num_preemptions
                self._scheduler.end(parent_beam, FinishReason.STOP)
        search.beams = beams


def _at(index: int, end: CompletionDelta) -> CompletionDelta:
    """The final delta of one continuation; only the first carries the preemptions, as they are
    summed."""
    if index == 0 or end.timing is None:
        return structs.replace(end, index=index)
    return structs.replace(end, index=index, timing=replace(end.timing, num_preemptions=0))
