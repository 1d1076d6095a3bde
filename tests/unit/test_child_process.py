from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quire.child_process import how_ended, python_command


def test_how_a_child_has_ended() -> None:
    assert how_ended(3) == "exited with status 3"
    assert how_ended(-signal.SIGBUS) == "was killed by SIGBUS"
    unnamed = signal.SIGRTMIN + 1
    assert how_ended(-unnamed) == f"was killed by signal {unnamed}"


def test_a_child_imports_from_where_its_parent_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('of the folder in which it runs')")
    paths = ["/it's some\nwhere/else", *sys.path]
    monkeypatch.setattr(sys, "path", [*paths, tmp_path])
    command = python_command(
        "import json; print(json.dumps([sys.path, sys.argv[1:]]))", "--", "a b"
    )
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [paths, ["--", "a b"]]
