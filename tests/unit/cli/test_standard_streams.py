"""Commands that are started with their input, output or errors closed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from quire.cli import main

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


def test_what_the_locale_cannot_show_is_an_escape() -> None:
    code = (
        "from quire.cli.standard_streams import open_standard_streams as run; "
        'run(); print("caf\\u00e9 \\u65e5")'
    )
    for encoding, shown in (("ascii", rb"caf\xe9 \u65e5"), ("latin-1", b"caf\xe9 \\u65e5")):
        ended = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            timeout=120,
        )
        assert (ended.returncode, ended.stdout.strip()) == (0, shown)
    chosen = {**os.environ, "PYTHONIOENCODING": "ascii:replace"}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=chosen, timeout=120
    )
    assert ended.stdout.strip() == b"caf? ?"


@pytest.mark.parametrize("words", [["generate", "-p", "x\udcff"], ["serve\udcff"]])
def test_an_argument_that_is_no_text_is_named_by_its_place(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"quire: error: argument {len(words)} is not UTF-8: ")
    assert "\\udcff'" in error and error.count("\n") == 1
