"""The limit of open files, in processes of their own, for a limit that was lowered stays."""

from __future__ import annotations

import subprocess
import sys

_WORK = """
import sys, resource
soft, hard, count = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from quire.server.open_files import allow_connections
print(allow_connections(count), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""
_WARNED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 400))
from quire import log
from quire.server.args import ServerArgs
from quire.server.serve import _allow_open_files
log.setup()
_allow_open_files(ServerArgs(max_queued_requests=140))
_allow_open_files(ServerArgs(max_queued_requests=1000))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def run(code: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def limits(soft: int, hard: int, count: int) -> list[int]:
    """What may be open now, and the limits of the process: soft and hard."""
    return [int(word) for word in run(_WORK, soft, hard, count).stdout.split()]


def test_the_soft_limit_is_raised_as_far_as_it_is_needed_and_may_be() -> None:
    assert limits(100, 1000, 140) == [396, 396, 1000]
    assert limits(100, 300, 140) == [300, 300, 300]
    assert limits(900, 1000, 140) == [396, 900, 1000], "it is never lowered"


def test_a_hard_limit_that_is_too_low_is_told() -> None:
    told = run(_WARNED)
    assert told.stdout.strip() == "400"
    (line,) = told.stderr.splitlines()
    assert "the hard limit of open files is 400, and --max-queued-requests 1000 needs 1256" in line
