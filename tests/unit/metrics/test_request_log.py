"""Lines about requests."""

from __future__ import annotations

import logging

import pytest

from quire.metrics.request_log import RequestLog
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
    import dataclasses

    with caplog.at_level(logging.INFO, logger="quire"):
        RequestLog(max_chars=3).request_started(dataclasses.replace(request(), prompt_text=None))
    assert "prompt [0, 1, 2]" in caplog.records[0].message
