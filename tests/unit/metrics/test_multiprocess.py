"""Several HTTP processes answer a scrape as one."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quire.metrics.multiprocess import (
    VARIABLE,
    folder_is_gone,
    is_shared,
    prepare_named_folder,
    reserve_files,
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


def test_a_full_disk_cannot_kill_a_process_with_reserved_files(tmp_path: Path) -> None:
    code = "import os; from quire.metrics.multiprocess import reserve_files as reserve\n"
    code += "reserve(os.getpid())\n" + _WORK
    code += "metrics.requests_of('m', 100)\n"
    with shared_folder(str(tmp_path)):
        subprocess.run([sys.executable, "-c", code, "2"], capture_output=True, check=True)
        files = [file.stat() for file in Path(os.environ[VARIABLE]).iterdir()]
        assert len(files) == 3  # of all kinds of metrics
        assert all(file.st_blocks * 512 >= file.st_size for file in files)
        assert "quire:http_responses_total" in run(2)


def test_room_that_cannot_be_reserved_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "counter_8.db").write_bytes(b"mine")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    reserve_files(8)
    assert (tmp_path / "counter_8.db").read_bytes() == b"mine"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"gone, the folder .* has been removed; make it anew"):
        reserve_files(7)


def test_files_without_room_are_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write = Path.write_bytes

    def write_on_a_full_disk(self: Path, data: bytes) -> int:
        write(self, data[:100])
        if len(list(tmp_path.iterdir())) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return 100

    (tmp_path / "counter_8.db").write_bytes(b"mine")
    monkeypatch.setattr(Path, "write_bytes", write_on_a_full_disk)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    message = f"need 3 MiB .* in {tmp_path}: No space left .*; make room .* folder with {VARIABLE}$"
    with pytest.raises(ValueError, match=message):
        reserve_files(8)
    assert [file.name for file in tmp_path.iterdir()] == ["counter_8.db"]


def test_a_folder_that_is_gone_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not folder_is_gone()
    with shared_folder(str(tmp_path)):
        assert not folder_is_gone()
        Path(os.environ[VARIABLE]).rmdir()
        assert folder_is_gone()


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
