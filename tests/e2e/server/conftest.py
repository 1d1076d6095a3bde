"""One server for all tests over a real socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.server import running_server


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    with running_server() as url:
        yield url
