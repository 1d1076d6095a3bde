"""Beam search inside the engine against the same policy without rows, blocks or steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from quire.engine.beam_search import BeamState, Hypothesis
from quire.engine.core import EngineCore
from quire.request import BeamSearch, EngineRequest, FinishReason, RowSampling, Watch
from quire.row_sampling import num_beam_candidates
from quire.step import TokenLogprobs
from tests.fakes.device import FakeDevice, FakeRow, token_scores
from tests.unit.scheduler.engines import build, request

STOP = (3,)


def beam_request(name: str, prompt: list[int], width: int, max_tokens: int) -> EngineRequest:
    sampling = RowSampling(
        temperature=0.0, num_logprobs=num_beam_candidates(width, len(STOP)), stop_token_ids=STOP
    )
    return EngineRequest(
        request_id=name,
        prompt_token_ids=prompt,
        sampling=sampling,
        max_tokens=max_tokens,
        beam=BeamSearch(width=width, length_penalty=0.7),
        watch=Watch.AT_END,
    )


def expected(each: EngineRequest) -> list[Hypothesis]:
    assert each.beam is not None
    state = BeamState(each.beam, max_tokens=each.max_tokens, stop_token_ids=STOP)
    beams: list[list[int]] = [[]]
    while True:
        candidates = []
        for beam in beams:
            scores = token_scores(each.prompt_token_ids + beam)
            best = np.argsort(-scores, kind="stable")[: each.sampling.num_logprobs]
            candidates.append((best, scores[best]))
        advance = state.advance(candidates)
        if advance.done:
            return state.hypotheses()
        beams = [[*beams[choice.parent], choice.token_id] for choice in advance.beams]


def drain(core: EngineCore) -> dict[tuple[str, int], list[int]]:
    answers = {}
    while core.has_unfinished:
        for delta in core.step():
            assert delta.finish_reason is not None
            answers[(delta.request_id, delta.index)] = delta.new_token_ids
        core.check_integrity()
    return answers


def failed_indices(core: EngineCore) -> list[int]:
    """Run until all has ended; the indices that ended with an error, and nothing else did."""
    deltas = []
    while core.has_unfinished:
        deltas += core.step()
        core.check_integrity()
    assert {delta.finish_reason for delta in deltas} == {FinishReason.ERROR}
    return [delta.index for delta in deltas]


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize(
    ("num_blocks", "depth", "windows"),
    [(300, 1, (None,)), (300, 3, (None,)), (24, 2, (None,)), (60, 1, (None, 6))],
)
def test_beams_are_those_of_the_policy_alone(
    width: int, num_blocks: int, depth: int, windows: tuple[int | None, ...]
) -> None:
    core, _ = build(num_blocks=num_blocks, depth=depth, windows=windows, max_num_batched_tokens=32)
    searches = [beam_request(f"b{i}", list(range(i, i + 11)), width, 14) for i in range(3)]
    for each in searches:
        core.add_request(each)
    core.add_request(request("sampled", [1, 2, 3], 20, watch=Watch.AT_END))
    answers = drain(core)
    for each in searches:
        wanted = expected(each)
        got = [answers[(each.request_id, index)] for index in range(len(wanted))]
        assert got == [hypothesis.token_ids for hypothesis in wanted]
    assert core.stats().num_free_blocks == num_blocks - 1


@pytest.mark.parametrize("num_rows", [8, 2])
def test_beams_that_do_not_fit_at_once_take_turns(num_rows: int) -> None:
    core, _ = build(num_blocks=8, max_num_batched_tokens=32, max_num_seqs=num_rows)
    each = beam_request("b", list(range(10)), 5, 14)
    core.add_request(each)
    answers = drain(core)
    assert [answers[("b", i)] for i in range(5)] == [h.token_ids for h in expected(each)]
    assert core.stats().num_preemptions > 0


def test_the_answers_of_a_search_tell_the_preemptions_of_all_beams() -> None:
    core, _ = build(num_blocks=8, max_num_batched_tokens=32)
    core.add_request(beam_request("b", list(range(10)), 5, 14))
    told = []
    while core.has_unfinished:
        told += [delta.timing.num_preemptions for delta in core.step() if delta.timing]
    assert told == [core.stats().num_preemptions, 0, 0, 0, 0]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_beams_that_share_nothing_any_more_take_turns(depth: int) -> None:
    """Each is computed again in two steps, while others that wait for it hold their blocks."""
    core, _ = build(num_blocks=8, max_num_batched_tokens=8, depth=depth, prefix_caching=False)
    each = beam_request("b", list(range(10)), 5, 14)
    core.add_request(each)
    answers = drain(core)
    assert [answers[("b", i)] for i in range(5)] == [h.token_ids for h in expected(each)]


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("windows", [(None,), (None, 6)])
@pytest.mark.parametrize("num_rows", [1, 2, 4])
def test_a_search_wider_than_the_rows_takes_turns_in_them(
    num_rows: int, windows: tuple[int | None, ...], depth: int
) -> None:
    each, num_tokens = beam_request("b", list(range(10)), 5, 14), []
    for rows in (5, num_rows):
        core, device = build(depth=depth, windows=windows, max_num_seqs=rows, prefix_caching=False)
        core.add_request(each)
        assert [*drain(core).values()] == [one.token_ids for one in expected(each)]
        num_tokens.append(device.num_computed_tokens)
    assert num_tokens[0] == num_tokens[1]
    stats = core.stats()
    assert stats.num_preemptions == 0 and stats.num_free_blocks == 199
    assert stats.num_steps <= 1 + 13 * -(-5 // num_rows)


def test_a_beam_that_waits_for_another_leaves_it_its_row() -> None:
    core, _ = build(max_num_seqs=2)
    core.add_request(request("long", [1, 2], 40, watch=Watch.AT_END))
    core.add_request(beam_request("b", list(range(6)), 2, 8))
    assert list(drain(core)) == [("b", 0), ("b", 1), ("long", 0)]


@pytest.mark.parametrize("depth", [1, 2])
def test_beams_that_wait_for_each_other_leave_all_rows_to_whose_turn_it_is(depth: int) -> None:
    core, _ = build(max_num_seqs=3, depth=depth)
    search = beam_request("b", list(range(6)), 3, 12)
    core.add_request(replace(search, priority=1))
    core.step()
    for i in range(9):
        core.add_request(request(f"r{i}", [i, i], 4, watch=Watch.AT_END))
    ended: list[str] = []
    for _ in range(9 * 4 // 3 + 4):  # on two rows it would be 18
        ended += [delta.request_id for delta in core.step()]
        core.check_integrity()
    assert sorted(ended) == [f"r{i}" for i in range(9)]
    answers = drain(core)
    assert [answers[("b", i)] for i in range(3)] == [h.token_ids for h in expected(search)]


def test_a_late_end_is_not_that_of_a_new_search_with_the_same_id() -> None:
    core, _ = build()
    search = beam_request("b", list(range(6)), 2, 8)
    core.add_request(search)
    core.step()
    core.abort(["b"], keeps_tokens=True)
    core.add_request(replace(search, serial=1))
    told = [(delta.serial, delta.finish_reason) for delta in core.step()]
    assert told == [(0, FinishReason.ABORT)] * 2
    answers = drain(core)
    assert [answers[("b", i)] for i in range(2)] == [h.token_ids for h in expected(search)]


def num_steps_of_search(num_later: int, priority: int) -> int:
    """Of one wider than the rows, with long requests that come when it runs."""
    core, _ = build(max_num_seqs=8, max_num_batched_tokens=64, num_blocks=400)
    core.add_request(beam_request("b", list(range(6)), 9, 20))
    core.step()
    for i in range(num_later):
        later = request(f"r{i}", [i, i], 55, watch=Watch.AT_END)
        core.add_request(replace(later, priority=priority))
    num_steps = 1
    while not any(delta.request_id == "b" for delta in core.step()):
        num_steps += 1
        core.check_integrity()
    return num_steps


@pytest.mark.parametrize("priority", [0, 5])
def test_beams_keep_their_rows_from_who_stands_behind_them(priority: int) -> None:
    assert num_steps_of_search(30, priority) == num_steps_of_search(0, priority)


def test_beams_share_their_common_beginning() -> None:
    core, device = build(max_num_batched_tokens=64)
    core.add_request(beam_request("b", list(range(40)), 4, 3))
    drain(core)
    assert device.num_computed_tokens <= 40 + 2 * 4


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_abort_of_a_search_frees_all_its_beams(num_steps: int) -> None:
    core, _ = build(depth=2)
    core.add_request(beam_request("b", list(range(10)), 4, 14))
    for _ in range(num_steps):
        core.step()
    core.abort(["b"])
    assert drain(core) == {}
    assert core.stats().num_free_blocks == 199


@pytest.mark.parametrize("num_steps", [0, 1, 4])
def test_an_abort_that_keeps_tokens_tells_an_end_for_each_beam_asked_for(num_steps: int) -> None:
    core, _ = build()
    core.add_request(beam_request("a", [1, 2, 3], 3, 9))
    for _ in range(num_steps):
        assert core.step() == []
    core.abort(["a"], keeps_tokens=True)
    assert [(one.index, one.finish_reason, one.new_token_ids) for one in core.step()] == [
        (index, FinishReason.ABORT, []) for index in range(3)
    ]
    core.check_integrity()
    assert not core.has_unfinished


def test_search_in_a_failed_step_ends_with_an_error() -> None:
    core, _ = build(device=FakeDevice(4, fails_on=999))
    core.add_request(beam_request("b", [1, 2, 999], 2, 4))
    assert failed_indices(core) == [0, 1]


@pytest.mark.parametrize("depth", [1, 3])
def test_failure_of_a_later_beam_ends_its_search(depth: int) -> None:
    search = beam_request("b", list(range(6)), 3, 8)
    unlucky = expected(search)[1].token_ids[4]
    core, _ = build(device=FakeDevice(4, fails_on=unlucky), depth=depth)
    core.add_request(search)
    assert failed_indices(core) == [0, 1, 2]
    assert core.stats().num_free_blocks == 199


@dataclass
class Forbidding(FakeDevice):
    """Allows only the best ``num_allowed`` tokens of a row."""

    num_allowed: int = 1

    def _sample(self, row: FakeRow, end: int) -> tuple[int, TokenLogprobs | None]:
        token, found = super()._sample(row, end)
        assert found is not None
        logprobs = found.logprobs.copy()
        logprobs[0, 1 + self.num_allowed :] = -np.inf
        return token, replace(found, logprobs=logprobs)


def test_search_with_too_few_continuations_ends_with_those() -> None:
    core, _ = build(device=Forbidding(4))
    core.add_request(beam_request("b", list(range(6)), 3, 4))
    answers = drain(core)
    assert [(key, len(tokens)) for key, tokens in answers.items()] == [(("b", 0), 4)]


def test_search_without_continuations_ends_with_an_error() -> None:
    core, _ = build(device=Forbidding(4, num_allowed=0))
    core.add_request(beam_request("b", list(range(6)), 3, 4))
    assert failed_indices(core) == [0, 1, 2]


def test_search_that_does_not_fit_ends_with_an_error() -> None:
    core, _ = build(num_blocks=4)
    core.add_request(beam_request("b", list(range(20)), 2, 4))
    assert failed_indices(core) == [0, 1]


def test_searches_survive_the_failure_of_another_request() -> None:
    core, _ = build(device=FakeDevice(4, fails_on=999), max_num_batched_tokens=32)
    search = beam_request("b", list(range(6)), 3, 8)
    core.add_request(search)
    for _ in range(3):
        core.step()
    core.add_request(request("bad", [7, 999], 4))
    answers = drain(core)
    wanted = expected(search)
    assert [answers[("b", i)] for i in range(len(wanted))] == [h.token_ids for h in wanted]
