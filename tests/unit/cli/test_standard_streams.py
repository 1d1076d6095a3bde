"""Commands that are started with their input, output or errors closed."""

from __future__ import annotations

import subprocess
import sys

import pytest

_QUIRE = f"{sys.executable} -m quire"
_DUMMY = "--load-format dummy --dtype float32 --device cpu"


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("which", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_descriptors_that_are_closed_are_open_afterwards(which: str) -> None:
    code = (
        "import os, sys; from quire.cli.standard_streams import open_standard_streams as run; "
        "run(); run(); sys.stdin.read(); print(1); print(2, file=sys.stderr); "
        "os._exit(7 if all(map(os.get_inheritable, range(3))) and os.dup(0) > 2 else 1)"
    )
    assert shell(f"{sys.executable} -c '{code}' {which}").returncode == 7


def test_generate_without_standard_input_says_what_is_missing() -> None:
    ended = shell(f"{_QUIRE} generate {_DUMMY} <&-")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("quire: error: there is no prompt; give")
    assert "Traceback" not in ended.stderr


def test_chat_without_standard_input_says_what_is_missing() -> None:
    ended = shell(f"{_QUIRE} chat {_DUMMY} <&-")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("quire: error: standard input has no text;")
    assert "Traceback" not in ended.stderr
