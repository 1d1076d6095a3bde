"""The end of a core that hangs, and of one that does not."""

from __future__ import annotations

import logging
import os
import signal
import time

import pytest

from quire.engine.process import ProcessClient
from quire.errors import EngineDeadError
from quire.server import served_core
from quire.server.served_core import ServedCore
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE


def test_a_core_that_hangs_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(served_core, "PATIENCE_S", 0.3)
    client = ServedCore(fake_config(), BUILD_FAKE_CORE)
    os.kill(client.pid, signal.SIGSTOP)
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, logger="quire"):
        client.close()
    assert time.monotonic() - started < 5
    assert f"process {client.pid}, has not answered for 0.3 s; it is killed" in caplog.text
    with pytest.raises(ProcessLookupError):
        os.kill(client.pid, 0)
    assert not client.folder.exists()


def test_a_core_that_answers_or_is_dead_is_not_killed(caplog: pytest.LogCaptureFixture) -> None:
    for is_dead in (False, True):
        client: ProcessClient = ServedCore(fake_config(), BUILD_FAKE_CORE)
        if is_dead:
            os.kill(client.pid, signal.SIGKILL)
            with pytest.raises(EngineDeadError):
                client.receive()
        client.close()
        client.close()
    assert caplog.text == ""
