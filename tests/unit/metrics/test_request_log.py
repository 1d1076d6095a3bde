"""Lines about requests."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from quire.metrics.request_log import RequestLog
from quire.request import FinishReason
from tests.unit.metrics.ends import ended, request


def test_prompts_are_cut_and_ends_have_their_figures(caplog: pytest.LogCaptureFixture) -> None:
    log = RequestLog(max_chars=4)
    with caplog.at_level(logging.INFO, logger="quire"):
        log.request_started(request("abc"))
        log.request_ended(ended(request("abc")))
    started, end = caplog.records
    assert "request abc: 100 prompt tokens" in started.message
    assert "prompt 'Once'" in started.message
    assert "request abc ended: stop, 11 tokens in 3.000 s, first after 1.000 s" in end.message
    assert vars(end)["fields"]["finish_reasons"] == ["stop"]


def test_a_prompt_without_text_shows_its_token_ids(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="quire"):
        RequestLog(max_chars=3).request_started(dataclasses.replace(request(), prompt_text=None))
    assert "prompt [0, 1, 2]" in caplog.records[0].message


LONG = {
    "structured_outputs": {"json": {"type": "object", "description": "x" * 50_000}},
    "logit_bias": dict.fromkeys(range(1_000), 1.5),
    "stop": ["a long stop string, which clients choose"],
    "temperature": 0.123456789,
}


def test_long_parameters_are_cut_like_prompts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="quire"):
        RequestLog(max_chars=6).request_started(request(**LONG))
    (message,) = caplog.messages
    assert len(message) < 1_000
    assert "logit_bias={0: 1....," in message and "stop=['a lo...," in message
    assert "temperature=0.123456789," in message and "max_tokens=50," in message


def test_parameters_are_shown_in_full_without_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    asked = request(**LONG)
    with caplog.at_level(logging.INFO, logger="quire"):
        RequestLog(max_chars=None).request_started(asked)
    assert repr(asked.params) in caplog.messages[0]


def test_an_end_without_a_token_has_no_time_to_the_first(caplog: pytest.LogCaptureFixture) -> None:
    aborted = ended(None, (0, FinishReason.ABORT), first_token_ts=0.0, first_token_latency=0.0)
    with caplog.at_level(logging.INFO, logger="quire"):
        RequestLog(max_chars=4).request_ended(aborted)
    (end,) = caplog.records
    assert end.message == "request r ended: abort, 0 tokens in 3.000 s, 64 cached"
    assert "ttft_seconds" not in vars(end)["fields"]
