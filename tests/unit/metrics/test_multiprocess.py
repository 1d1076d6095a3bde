"""Several HTTP processes answer a scrape as one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quire.metrics.multiprocess import VARIABLE, is_shared, shared_folder

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
