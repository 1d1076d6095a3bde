from __future__ import annotations

import time
from typing import Any

import pytest

from quire.bench.serving.measure import Measured, StreamWatch
from tests.fakes.sse_server import events


def chunk(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, "text": text, "finish_reason": finish}]}


def chat(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def usage(prompt: int, output: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output}}


def watched(*contents: object) -> Measured:
    watch = StreamWatch(Measured(started=time.perf_counter()))
    for event in events(*contents):
        watch.feed(event)
    watch.end()
    return watch.measured


def timed(monkeypatch: pytest.MonkeyPatch, *contents: tuple[float, object]) -> Measured:
    """An answer to a request sent at 0, as (when it arrives, event)."""
    watch = StreamWatch(Measured(started=0.0))
    for now, content in contents:
        monkeypatch.setattr(time, "perf_counter", lambda now=now: now)
        (event,) = events(content)
        watch.feed(event)
    watch.end()
    return watch.measured


def call(**function: str) -> list[dict[str, Any]]:
    return [{"index": 0, "function": function}]


def test_each_event_counts_once_and_usage_says_how_many_tokens() -> None:
    found = watched(chunk("a"), chunk(""), chunk("bc", "length"), usage(7, 5), "[DONE]")
    assert found.ok and found.text == "abc"
    assert len(found.itls) == 2  # half a character is a token too
    assert (found.num_prompt_tokens, found.num_output_tokens) == (7, 5)
    assert 0 < found.ttft <= found.e2el == found.ttft + sum(found.itls)


def test_what_is_null_is_not_there() -> None:
    ends = [{"choices": None}, {"usage": {"prompt_tokens": None, "completion_tokens": 4}}]
    watch = StreamWatch(Measured(started=0.0, num_prompt_tokens=3))
    for event in events(chunk("a"), *ends, "[DONE]"):
        watch.feed(event)
    watch.end()
    assert watch.measured.ok
    assert (watch.measured.num_prompt_tokens, watch.measured.num_output_tokens) == (3, 4)


def test_an_end_of_sequence_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [(0.1, chunk("a")), (0.2, chunk("b")), (0.3, chunk("c"))]
    end = [(0.4, chunk("", "stop")), (0.4, usage(5, 4)), (0.4, "[DONE]")]
    found = timed(monkeypatch, *texts, *end)
    assert found.itls == pytest.approx([0.1, 0.1, 0.1])
    assert (found.ttft, found.tpot, found.e2el) == pytest.approx((0.1, 0.1, 0.4))


def test_without_usage_an_end_without_text_is_no_token() -> None:
    found = watched(chunk("a"), chunk("", "stop"), "[DONE]")
    assert found.ok and found.num_output_tokens == 1
    assert found.tpot is None


def test_tool_calls_and_thoughts_are_tokens_of_a_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    found = timed(
        monkeypatch,
        (0.1, chat(role="assistant", content="")),
        (0.2, chat(reasoning_content="hm")),
        (0.3, chat(role="assistant", tool_calls=call(name="f", arguments=""))),
        (0.4, chat(tool_calls=call(arguments="{}"))),
        (0.5, chat("tool_calls")),
        (0.5, usage(5, 4)),
        (0.5, "[DONE]"),
    )
    assert found.ok and found.text == "hm"
    assert found.itls == pytest.approx([0.1, 0.1, 0.1])
    assert (found.ttft, found.tpot, found.e2el) == pytest.approx((0.2, 0.1, 0.5))


def test_a_chat_may_begin_with_a_tool_call(monkeypatch: pytest.MonkeyPatch) -> None:
    first = chat(role="assistant", content=None, tool_calls=call(name="f", arguments=""))
    found = timed(
        monkeypatch, (0.1, first), (0.3, chat("tool_calls")), (0.3, usage(5, 2)), (0.3, "[DONE]")
    )
    assert found.ok and (found.ttft, found.e2el) == pytest.approx((0.1, 0.3))


def test_half_a_character_of_a_chat_is_a_token() -> None:
    found = watched(chat(content=""), chat(content="\u00e9"), usage(5, 2), "[DONE]")
    assert found.ok and len(found.itls) == 1


def test_a_token_without_text_that_comes_with_the_end_is_an_answer() -> None:
    found = watched(chunk("", "length"), usage(7, 1), "[DONE]")
    assert found.ok and found.text == "" and found.itls == []
    assert found.num_output_tokens == 1 and found.e2el == found.ttft > 0


def test_a_chat_of_tokens_without_text_is_an_answer() -> None:
    role = chat(role="assistant", content="")
    found = watched(role, chat("stop", content=""), usage(7, 3), "[DONE]")
    assert found.ok and found.num_output_tokens == 3 and found.ttft > 0


def test_a_chat_begins_with_its_first_text_and_not_with_the_role() -> None:
    found = watched(
        chat(role="assistant", content=""), chat(reasoning="hm"), chat(content="a"), "[DONE]"
    )
    assert found.text == "hma" and len(found.itls) == 1


@pytest.mark.parametrize(
    ("contents", "error"),
    [
        ([chunk("a"), {"error": {"message": "it died"}}], "it died"),
        ([chunk("a")], "ended without"),
        (["[DONE]"], "no text"),
        ([usage(7, 1), "[DONE]"], "no text"),  # it was never finished
        ([chunk("", "stop"), usage(7, 0), "[DONE]"], "no text"),
        ([chunk("", "length"), usage(7, 1)], "ended without"),
    ],
)
def test_what_is_no_whole_answer_has_failed(contents: list[object], error: str) -> None:
    found = watched(*contents)
    assert not found.ok and error in found.error
