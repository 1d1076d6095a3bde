"""What a signal does before a server can drain."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quire.server.signals import end_at_signals, hand_over, stop_signals

pytestmark = pytest.mark.usefixtures("hears_hangup")

_EARLY = """
import os, signal, sys
from quire import cli
number, is_ignored = int(sys.argv[1]), sys.argv[2] == "ignored"
if is_ignored:
    signal.signal(number, signal.SIG_IGN)
cli.dispatch = lambda *_: os.kill(os.getpid(), number) or 7
sys.exit(cli.main(sys.argv[3:]))
"""


def status(number: signal.Signals, how: str, *words: str) -> int:
    """Of a command line that gets a signal before its command is imported."""
    command = [sys.executable, "-c", _EARLY, str(int(number)), how, *words]
    return subprocess.run(command, timeout=60).returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_server_ends_at_a_signal_before_it_is_imported(number: signal.Signals) -> None:
    assert status(number, "", "serve") == 128 + number
    assert status(number, "", "generate") == -number


def test_under_nohup_the_end_of_the_terminal_is_nothing() -> None:
    assert status(signal.SIGHUP, "ignored", "serve") == 7
    code = "import signal; from quire.server.signals import stop_signals; \
print(signal.SIGHUP in stop_signals()); signal.signal(signal.SIGHUP, signal.SIG_IGN); \
print(signal.SIGHUP in stop_signals())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stdout.split() == ["True", "False"]


_LOST = """
import os, signal, sys
from quire import cli
from quire.server import serve

class Destructor:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

build = serve._uvicorn_config
serve._uvicorn_config = lambda *words: (Destructor(), build(*words))[1]
sys.exit(cli.main(["serve", "--device", "cpu", "--uds", sys.argv[1]]))
"""


def test_a_signal_that_got_lost_while_the_server_was_built_ends_it_later(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    command = [sys.executable, "-c", _LOST, str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "Exception ignored in" in ended.stderr and "listening at" in ended.stderr
    assert (ended.returncode, path.exists()) == (0, False)


@pytest.fixture
def _same_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in stop_signals()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_same_handlers")
@pytest.mark.parametrize("number", [None, signal.SIGTERM, signal.SIGHUP])
def test_who_takes_over_is_told_of_a_signal_before(number: signal.Signals | None) -> None:
    statuses: list[int] = []
    end_at_signals(statuses.append)
    if number is not None:
        signal.raise_signal(number)
    others: list[int] = []

    def set_handler(number: signal.Signals) -> None:
        signal.signal(number, lambda *_: others.append(number))

    assert hand_over(stop_signals(), set_handler) == (number is not None)
    assert statuses == ([] if number is None else [128 + number])
    assert not hand_over(stop_signals(), set_handler), "nobody was to end it since"
    signal.raise_signal(signal.SIGTERM)
    assert others == [signal.SIGTERM]
