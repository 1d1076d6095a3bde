"""Very many random requests to one server, made from its own description of its API."""

from __future__ import annotations

import pytest

from quire.server.openapi import GENERATING
from tests.fakes.api_cases import num_lost_blocks, send_cases
from tests.fakes.server import running_server


@pytest.mark.soak
def test_ten_thousand_random_requests() -> None:
    with running_server(["--max-num-seqs", "8", "--kv-cache-memory-bytes", "32MiB"]) as url:
        tally = send_cases(url, 10_000)
        num_lost = num_lost_blocks(url)
    print(f"\n{tally}; {num_lost} blocks lost")
    assert num_lost == 0
    assert tally.paths_with(200) >= GENERATING
