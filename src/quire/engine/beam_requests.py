"""Beam requests: carries the choices of beam search out on running completions.

Which beams live on is decided in ``beam_search``; blocks and rows are the scheduler's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

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

    def forget(self, request_ids: Iterable[str]) -> None:
        """Drop searches whose request has ended otherwise, with the beams that are left."""
        for request_id in request_ids:
            if self._searches.pop(request_id, None) is not None:
                self._scheduler.abort([request_id])

    def advance(self, held: list[tuple[Completion, TokenLogprobs]]) -> list[CompletionDelta]:
        """Take in the candidates of held beams; the final answers of searches that ended."""
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
        first = search.beams[0]
        timing, num_cached = first.timing(), first.num_cached_tokens
        self.forget([search.request.request_id])
        return self._final_deltas(search, timing, num_cached)

    def _continue(self, search: _Search, choices: list[BeamChoice]) -> None:
        """Forks first, while every parent still has its blocks; the last heir of a parent takes
        its row over, and parents without heirs end."""
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
                self._scheduler.end(parent_beam, FinishReason.STOP)
        search.beams = beams

    def _final_deltas(
        self, search: _Search, timing: CompletionTiming, num_cached: int
    ) -> list[CompletionDelta]:
        return [
            CompletionDelta(
                request_id=search.request.request_id,
                index=index,
                new_token_ids=np.asarray(hypothesis.token_ids).tolist(),
                finish_reason=FinishReason(hypothesis.finish_reason),
                num_cached_tokens=num_cached,
                score=hypothesis.score,
                cumulative_logprob=hypothesis.sum_logprob,
                timing=timing,
            )
            for index, hypothesis in enumerate(search.state.hypotheses())
        ]
