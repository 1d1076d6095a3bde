"""Several HTTP processes answer a scrape as one."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quire.metrics.multiprocess import (
    VARIABLE,
    is_shared,
    prepare_named_folder,
    shared_folder,
)

_WORK = """
import sys
from quire.metrics.metrics import Metrics
from quire.metrics.throughput import Throughput
from quire.step_output import EngineStats
metrics = Metrics("both")
for _ in range(int(sys.argv[1])):
    metrics.http.started()
    metrics.http.ended("/v1/completions", "POST", 200, 0.1)
print(metrics.text("m", None, EngineStats(), Throughput()).decode())
"""


def run(count: int) -> str:
    command = [sys.executable, "-c", _WORK, str(count)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_processes_of_one_folder_add_up(tmp_path: Path) -> None:
    with shared_folder(str(tmp_path)):
        assert is_shared()
        first, second = run(2), run(3)
    assert not is_shared()
    labels = 'handler="/v1/completions",method="POST",status="200"'
    assert f"quire:http_responses_total{{{labels}}} 2.0" in first
    assert f"quire:http_responses_total{{{labels}}} 5.0" in second
    assert f"http_requests_total{{{labels.replace('200', '2xx')}}} 5.0" in second


def test_a_folder_of_the_users_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with shared_folder("/nowhere"):
        assert os.environ[VARIABLE] == str(tmp_path)
    assert os.environ[VARIABLE] == str(tmp_path)


def test_a_named_folder_is_made_and_what_is_left_in_it_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    prepare_named_folder()
    folder = tmp_path / "not" / "yet"
    monkeypatch.setenv(VARIABLE, str(folder))
    with caplog.at_level(logging.WARNING, logger="quire"):
        prepare_named_folder()
        assert "quire:http_responses_total" in run(2)
        assert caplog.text == ""
        prepare_named_folder()
    count = len(list(folder.iterdir()))
    assert f"{VARIABLE}={folder} holds {count} files (*.db) of another run" in caplog.text


def test_a_named_folder_that_cannot_be_written_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    for path, why in ((file, "File exists"), (file / "x", "Not a directory"), ("/proc", "No such")):
        monkeypatch.setenv(VARIABLE, str(path))
        with pytest.raises(ValueError, match=f"^{VARIABLE}={path}: {why}.*; name a folder"):
            prepare_named_folder()
