"""One engine of the bundled model for all tests of the HTTP API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from quire.engine.async_engine import AsyncLLM
from quire.server.state import ServerState
from tests.fakes.server import in_process_client, ready_state, tiny_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[AsyncLLM]:
    engine = tiny_engine()
    yield engine
    engine.shutdown()


@pytest.fixture
def state(engine: AsyncLLM) -> ServerState:
    return ready_state(engine)


@pytest.fixture
async def client(state: ServerState) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process_client(state) as client:
        yield client
