"""Two servers for all tests over a real socket that need none of their own: one that is open, and
one with a key."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.fakes.server import KEY, NUM_BLOCKS, running_server

_FLAGS = ("--dtype", "float32", "--num-gpu-blocks-override", str(NUM_BLOCKS))


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    with running_server(_FLAGS) as url:
        yield url


@pytest.fixture(scope="session")
def locked_server_url() -> Iterator[str]:
    with running_server([*_FLAGS, "--api-key", KEY]) as url:
        yield url


@pytest.fixture
def client(server_url: str) -> Iterator[openai.OpenAI]:
    """OpenAI's own, of the open server."""
    with openai.OpenAI(base_url=f"{server_url}/v1", api_key="none", max_retries=0) as client:
        yield client
