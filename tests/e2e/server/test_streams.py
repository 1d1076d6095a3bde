"""Sixty streams at once, and a third of the clients vanish. A thousand: tests/soak."""

from __future__ import annotations

from tests.fakes.api_cases import num_lost_blocks
from tests.fakes.stream_storm import calm_texts, storm, until_idle, wrong


async def test_vanishing_clients_disturb_nobody(server_url: str) -> None:
    expected = await calm_texts(server_url)
    result = await storm(server_url, 60, seed=1)
    until_idle(server_url)
    assert (len(result.texts), result.num_gone) == (40, 20)
    assert wrong(result, expected) == []
    assert num_lost_blocks(server_url) == 0
