"""Commands that are started with their input, output or errors closed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from quire.cli import main

_QUIRE = f"{sys.executable} -m quire"
_DUMMY = "--load-format dummy --dtype float32 --device cpu"


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=120)


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


@pytest.mark.parametrize("words", [["generate", "-p", "x\udcff"], ["serve\udcff"]])
def test_an_argument_that_is_no_text_is_named_by_its_place(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"quire: error: argument {len(words)} is not UTF-8: ")
    assert "\\udcff'" in error and error.count("\n") == 1
