"""The server's own description of its API, and requests that are made from it at random."""

from __future__ import annotations

from quire.server.openapi import GENERATING
from tests.fakes.api_cases import num_lost_blocks, send_cases


def test_random_requests_get_the_answers_that_the_description_tells_of(server_url: str) -> None:
    tally = send_cases(server_url, 300)
    print(tally)
    assert num_lost_blocks(server_url) == 0
    assert tally.paths_with(200) >= GENERATING
