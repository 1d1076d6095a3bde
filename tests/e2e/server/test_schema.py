"""The server's own description of its API, and requests that are made from it at random."""

from __future__ import annotations

from quire.server.openapi import GENERATING
from tests.fakes.api_cases import free_blocks, send_cases


def test_random_requests_get_the_answers_that_the_description_tells_of(server_url: str) -> None:
    tally = send_cases(server_url, 300)
    print(tally)
    free, blocks = free_blocks(server_url)
    assert free == blocks - 1, "one block belongs to nobody"
    assert tally.paths_with(200) >= GENERATING
