"""Standard streams that are closed, redirected or unable to take what is written."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from quire.standard_streams import Stderr, has_onlooker


@pytest.mark.parametrize("which", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_descriptors_that_are_closed_are_open_afterwards(which: str) -> None:
    code = (
        "import os, sys; from quire.standard_streams import open_standard_streams as run; "
        "run(); run(); sys.stdin.read(); print(1); print(2, file=sys.stderr); "
        "os._exit(7 if all(map(os.get_inheritable, range(3))) and os.dup(0) > 2 else 1)"
    )
    line = f"{sys.executable} -c '{code}' {which}"
    ended = subprocess.run(["sh", "-c", line], capture_output=True, timeout=120)
    assert ended.returncode == 7


def test_what_the_locale_cannot_show_is_an_escape() -> None:
    code = (
        "from quire.standard_streams import open_standard_streams as run; "
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


class WriteOnly:
    """What programs put in the place of stderr to send it to a log."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, WriteOnly(), closed(), io.StringIO()])
def test_no_onlooker_where_stderr_is_no_terminal(
    stream: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert not has_onlooker()
    Stderr().write("lost, or written")
    Stderr().flush()
    assert isinstance(Stderr().encoding, str)


@pytest.mark.parametrize(("module", "isatty"), [("__main__", True), ("ipykernel.iostream", False)])
def test_terminals_and_notebooks_have_an_onlooker(
    module: str, isatty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {"__module__": module, "isatty": lambda self: isatty}
    monkeypatch.setattr(sys, "stderr", type("Stream", (io.StringIO,), members)())
    assert has_onlooker()


def test_text_goes_to_the_stderr_of_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr, log = Stderr(), WriteOnly()
    monkeypatch.setattr(sys, "stderr", log)
    assert stderr.write("hello") == 5
    assert log.text == "hello"


def test_what_a_full_disk_cannot_take_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        stderr = io.TextIOWrapper(full, write_through=True)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stderr)
            Stderr().write("lost")
            Stderr().flush()
        stderr.detach()
