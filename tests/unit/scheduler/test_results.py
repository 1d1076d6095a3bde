"""What the front end is told of rows that somebody looks at now and then."""

from __future__ import annotations

import pytest

from quire.request import EngineRequest, RowSampling, Watch
from quire.scheduler.results import FEW_ROWS
from tests.unit.scheduler.engines import build, expected, request

MAX_TOKENS = 20


def told(requests: list[EngineRequest], **limits: object) -> dict[str, list[list[int]]]:
    """The new tokens of each delta, per request."""
    core, _ = build(max_num_seqs=64, max_num_batched_tokens=256, **limits)
    for each in requests:
        core.add_request(each)
    deltas: dict[str, list[list[int]]] = {each.request_id: [] for each in requests}
    while core.has_unfinished:
        for delta in core.step():
            deltas[delta.request_id].append(delta.new_token_ids)
        core.check_integrity()
    return deltas


def watched_now_and_then(count: int) -> list[EngineRequest]:
    sampling = RowSampling(stop_token_ids=(3,))
    return [
        request(
            f"r{i}", [i % 7, i % 5] * (1 + i % 3), MAX_TOKENS,
            watch=Watch.NOW_AND_THEN, sampling=sampling,
        )
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("num_blocks", [2000, 120])  # with the fewer, rows are preempted
def test_many_rows_are_told_of_every_few_tokens_and_nothing_is_lost(
    depth: int, num_blocks: int
) -> None:
    requests = watched_now_and_then(FEW_ROWS + 16)
    deltas = told(requests, depth=depth, num_blocks=num_blocks, block_size=8)
    for each in requests:
        pieces = deltas[each.request_id]
        tokens = [token for piece in pieces for token in piece]
        assert tokens == expected(each)[each.request_id, 0]
    if num_blocks == 2000:
        assert max(map(len, deltas.values())) <= 1 + (MAX_TOKENS + 7) // 8
        together = [len(piece) for pieces in deltas.values() for piece in pieces[1:-1]]
        assert together and set(together) == {8}


def test_few_rows_are_told_of_every_token() -> None:
    requests = watched_now_and_then(FEW_ROWS // 4)
    deltas = told(requests)
    for each in requests:
        wanted = expected(each)[each.request_id, 0]
        assert deltas[each.request_id] == [[token] for token in wanted]


@pytest.mark.parametrize("watch", [Watch.EVERY_STEP, Watch.NOW_AND_THEN, Watch.AT_END])
def test_the_first_and_the_last_delta_say_when_things_happened(watch: Watch) -> None:
    core, _ = build(max_num_seqs=64, max_num_batched_tokens=256)
    core.add_request(request("r", [1, 2], MAX_TOKENS, watch=watch))
    deltas = []
    while core.has_unfinished:
        deltas += core.step()
    first, last = deltas[0].timing, deltas[-1].timing
    assert first is not None and last is not None
    assert 0 < first.scheduled_time <= first.first_token_time
    assert (first.scheduled_time, first.first_token_time) == (
        last.scheduled_time,
        last.first_token_time,
    )
    assert not any(delta.timing for delta in deltas[1:-1])


def test_the_first_delta_after_a_preemption_tells_of_it() -> None:
    core, _ = build(num_blocks=13)
    for i in range(3):
        core.add_request(request(f"r{i}", [i] * 5, 25))
    told: dict[str, list[int]] = {f"r{i}": [] for i in range(3)}
    while core.has_unfinished:
        for delta in core.step():
            if delta.timing is not None and delta.finish_reason is None:
                told[delta.request_id].append(delta.timing.num_preemptions)
        core.check_integrity()
    num_preemptions = core.stats().num_preemptions
    assert num_preemptions > 1
    assert sum(counts[-1] for counts in told.values()) == num_preemptions
    assert all(counts == sorted(set(counts)) for counts in told.values())
