"""Sockets have room in any folder of temporary files."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from quire.engine import socket_folder
from quire.engine.process import ProcessClient
from quire.engine.socket_folder import parent_of_sockets
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return str(folder)


def test_the_usual_folder_is_taken_as_long_as_every_path_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for num_bytes, parent in ((68, "/" + "x" * 67), (69, "/tmp")):
        monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * (num_bytes - 1))
        assert parent_of_sockets() == parent
    monkeypatch.setattr(tempfile, "tempdir", "/" + "ö" * 40)
    assert parent_of_sockets() == "/tmp"


def test_a_core_starts_with_a_deep_folder_of_temporary_files(deep: str) -> None:
    client = ProcessClient(fake_config(), BUILD_FAKE_CORE)
    assert client.folder.exists() and not str(client.folder).startswith(deep)
    client.close()
    assert not client.folder.exists() and list(Path(deep).iterdir()) == []


def test_the_error_names_the_variable(deep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_folder, "_SHORT", "/no/where")
    words = rf"TMPDIR={deep} has {len(deep)} bytes, .* /no/where cannot be written; .* at most 68 b"
    with pytest.raises(ValueError, match=words):
        parent_of_sockets()
