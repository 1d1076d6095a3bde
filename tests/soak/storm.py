"""A storm of requests over one engine, and the same requests in calm weather to compare with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest

from quire import LLMEngine
from quire.outputs import CompletionOutput, Logprob, RequestOutput
from quire.sampling_params import RequestOutputKind
from tests.fakes.engines import core_of, run_to_end
from tests.soak.requests import Ask

TOLERANCE = 5e-4  # of log-probabilities: float32 sums differ with the shape of a step
CROWD = 20  # unfinished requests
ABORTS_PER_STEP = 0.02
NEIGHBOURS = 8  # token ids this close together are neighbours


@dataclass(slots=True)
class Storm:
    """Adds, steps and aborts at random moments; ``answers`` are what callers have in their hands,
    finished or aborted."""

    engine: LLMEngine
    random: Random
    check_every: int = 1  # steps
    answers: dict[str, RequestOutput] = field(default_factory=dict)
    num_steps: int = 0
    aborted: set[str] = field(default_factory=set)  # before their answers were finished
    num_aborted_running: int = 0  # with rows and blocks
    most_waiting: int = 0
    _kinds: dict[str, RequestOutputKind] = field(default_factory=dict)
    _due: dict[str, int] = field(default_factory=dict)  # name -> the step to abort it at

    def run(self, asks: Iterable[Ask]) -> None:
        """Until all have ended, and nothing of them is left."""
        to_come = list(asks)[::-1]
        most_steps = self.num_steps + 200 + 100 * len(to_come)
        while to_come or self.engine.has_unfinished_requests():
            is_crowded = self.engine.get_num_unfinished_requests() > CROWD
            if to_come and not is_crowded and self.random.random() < 0.3:
                for _ in range(min(self.random.randint(1, 6), len(to_come))):
                    self._add(to_come.pop())
            self._abort_some()
            self._step()
            assert self.num_steps < most_steps, f"no progress: {self.engine.stats()}"
        assert_nothing_left(self.engine)

    def _add(self, ask: Ask) -> None:
        self._kinds[ask.name] = ask.params.output_kind
        self.engine.add_request(ask.name, ask.prompt, ask.params, priority=ask.priority)
        if ask.abort_after is not None:
            self._due[ask.name] = self.num_steps + ask.abort_after

    def _abort_some(self) -> None:
        """Those whose callers have waited long enough, and now and then one that runs."""
        due = {name for name, step in self._due.items() if step <= self.num_steps}
        running = running_requests(self.engine)
        if running and self.random.random() < ABORTS_PER_STEP:
            due.add(self.random.choice(running))
        for name in sorted(due):
            self._due.pop(name, None)
            answer = self.answers.get(name)
            if answer is None or not answer.finished:
                self.aborted.add(name)
            self.num_aborted_running += name in running
        self.engine.abort_request(due)

    def _step(self) -> None:
        for output in self.engine.step():
            self._take(output)
        self.num_steps += 1
        if self.num_steps % self.check_every == 0:
            core_of(self.engine).check_integrity()
            self.most_waiting = max(self.most_waiting, self.engine.stats().num_waiting)

    def _take(self, output: RequestOutput) -> None:
        name = output.request_id
        known = self.answers.get(name)
        if known is None:
            self.answers[name] = output
            return
        assert not known.finished, "news of a request that has ended"
        known.add(output, aggregate=self._kinds[name] is RequestOutputKind.DELTA)


def running_requests(engine: LLMEngine) -> list[str]:
    """Request ids with at least one row, in the order of their rows."""
    owners = core_of(engine)._scheduler.table.completions
    return list(dict.fromkeys(one.request.request_id for one in owners if one is not None))


def calm_answers(engine: LLMEngine, asks: Iterable[Ask]) -> dict[str, RequestOutput]:
    for ask in map(Ask.calm, asks):
        engine.add_request(ask.name, ask.prompt, ask.params)
    return run_to_end(engine)


def assert_nothing_left(engine: LLMEngine) -> None:
    core, stats = core_of(engine), engine.stats()
    core.check_integrity()
    assert not core.has_unfinished
    assert stats.num_running == stats.num_waiting == stats.num_shared_blocks == 0
    assert stats.num_free_blocks == stats.num_blocks - 1
    assert core.step() == []
    assert engine.reset_prefix_cache()
    assert engine.stats().num_cached_blocks == 0


@dataclass(slots=True)
class Comparison:
    """The answers of a storm beside those of a calm engine."""

    neighbours: int = NEIGHBOURS  # token ids this close together may be exchanged by rounding
    problems: list[str] = field(default_factory=list)
    num_completions: int = 0
    num_rounded: int = 0  # of them, where rounding drew a neighbouring token

    def add(self, storm: RequestOutput, calm: RequestOutput, ask: Ask) -> None:
        """A request that was aborted has the beginning of the calm answer."""
        others = {one.index: one for one in calm.outputs}
        for one in storm.outputs:
            self.num_completions += 1
            other = others[one.index]
            if _is_rounding(one, other, ask, self.neighbours):
                self.num_rounded += 1
            else:
                problem = _difference(one, other, storm.finished)
                self._note(not problem, f"{ask.name}, completion {one.index}: {problem}")
        self._note(
            not storm.finished or len(storm.outputs) == len(calm.outputs),
            f"{ask.name}: {len(storm.outputs)} completions",
        )
        if storm.prompt_logprobs is not None and calm.prompt_logprobs is not None:
            close = _close(storm.prompt_logprobs[1:], calm.prompt_logprobs[1:])
            self._note(close, f"{ask.name}: the prompt's log-probabilities differ")

    def _note(self, is_right: bool, problem: str) -> None:
        if not is_right:
            self.problems.append(problem)


def _is_rounding(
    storm: CompletionOutput, calm: CompletionOutput, ask: Ask, neighbours: int
) -> bool:
    """Sampled tokens are found by a cumulative sum in the order of the vocabulary; where a random
    number falls on the border of two tokens, the last bit of a logit decides between them."""
    if ask.params.temperature == 0 or ask.params.use_beam_search:
        return False
    pairs = zip(storm.token_ids, calm.token_ids, strict=False)
    first = next(((a, b) for a, b in pairs if a != b), None)
    return first is not None and abs(first[0] - first[1]) <= neighbours


def _difference(storm: CompletionOutput, calm: CompletionOutput, finished: bool) -> str:
    tokens, expected = list(storm.token_ids), list(calm.token_ids)
    if tokens != expected[: len(tokens)]:
        return f"{tokens} and not {expected}"
    if not calm.text.startswith(storm.text):
        return f"{storm.text!r} and not {calm.text!r}"
    if storm.logprobs and not _close(storm.logprobs, (calm.logprobs or [])[: len(tokens)]):
        return "log-probabilities differ"
    if not finished:
        return ""
    end, wanted = (
        (len(one.token_ids), one.text, one.finish_reason, one.stop_reason) for one in (storm, calm)
    )
    if end != wanted:
        return f"{end} and not {wanted}"
    return "" if storm.score == pytest.approx(calm.score, abs=TOLERANCE) else "scores differ"


def _close(
    found: Sequence[dict[int, Logprob] | None], expected: Sequence[dict[int, Logprob] | None]
) -> bool:
    """The chosen tokens, which come first, are equally likely; so are the best."""
    return len(found) == len(expected) and all(
        one is not None
        and other is not None
        and next(iter(one)) == next(iter(other))
        and _values(one) == pytest.approx(_values(other), abs=TOLERANCE)
        for one, other in zip(found, expected, strict=True)
    )


def _values(logprobs: dict[int, Logprob]) -> list[float]:
    return [one.logprob for one in logprobs.values()]
