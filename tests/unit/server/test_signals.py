"""What a signal does before a server can drain."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

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
