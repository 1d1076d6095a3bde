"""Outputs that wait for a slow reader are merged; old metric names still work."""

from __future__ import annotations

from quire.outputs import CompletionOutput, Logprob, RequestMetrics, RequestOutput


def output(*completions: CompletionOutput, finished: bool = False) -> RequestOutput:
    return RequestOutput("r", "p", [1], None, list(completions), finished)


def piece(index: int, text: str, token_id: int, reason: str | None = None) -> CompletionOutput:
    logprobs = [{token_id: Logprob(-1.0, 1, text)}]
    return CompletionOutput(index, text, [token_id], -1.0, logprobs, finish_reason=reason)


def test_deltas_are_joined() -> None:
    waiting = output(piece(0, "a", 1))
    waiting.add(output(piece(1, "x", 2)), aggregate=True)
    waiting.add(output(piece(0, "b", 3, "stop"), finished=True), aggregate=True)
    first, second = waiting.outputs
    assert (first.text, list(first.token_ids), first.finish_reason) == ("ab", [1, 3], "stop")
    assert first.logprobs is not None and len(first.logprobs) == 2
    assert (second.text, second.finished()) == ("x", False)
    assert waiting.finished


def test_cumulative_outputs_replace_each_other() -> None:
    waiting = output(piece(0, "a", 1))
    waiting.add(output(piece(0, "ab", 2)), aggregate=False)
    assert [one.text for one in waiting.outputs] == ["ab"]


def test_older_metric_names() -> None:
    metrics = RequestMetrics(
        arrival_time=1.0, queued_ts=1.0, scheduled_ts=3.0, first_token_ts=4.0, last_token_ts=9.0
    )
    assert metrics.time_in_queue == 2.0
    assert metrics.first_scheduled_time == 3.0
    assert metrics.first_token_time == 4.0
    assert (metrics.last_token_time, metrics.finished_time) == (9.0, 9.0)
    assert RequestMetrics(arrival_time=1.0).first_token_time is None
