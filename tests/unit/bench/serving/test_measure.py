from __future__ import annotations

import time
from typing import Any

import pytest

from quire.bench.serving.measure import Measured, StreamWatch
from tests.fakes.sse_server import events


def chunk(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, "text": text, "finish_reason": finish}]}


def chat(finish: str | None = None, **delta: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def usage(prompt: int, output: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output}}


def watched(*contents: object) -> Measured:
    watch = StreamWatch(Measured(started=time.perf_counter()))
    for event in events(*contents):
        watch.feed(event)
    watch.end()
    return watch.measured


def test_each_text_counts_once_and_usage_says_how_many_tokens() -> None:
    found = watched(chunk("a"), chunk(""), chunk("bc", "length"), usage(7, 5), "[DONE]")
    assert found.ok and found.text == "abc"
    assert len(found.itls) == 2  # half a character is a token too
    assert (found.num_prompt_tokens, found.num_output_tokens) == (7, 5)
    assert 0 < found.ttft <= found.e2el == found.ttft + sum(found.itls)


def test_an_end_without_text_is_no_token() -> None:
    found = watched(chunk("a"), chunk("", "stop"), "[DONE]")
    assert found.itls == [] and found.num_output_tokens == 1
    assert found.tpot is None


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
