"""A Python process that Quire starts for itself: its command line, and how it has ended. Does not
know what it runs.

Uses "-c" instead of multiprocessing, so that a user's script needs no __main__ guard. The child has
this process's import path and nothing else, not even its working folder.
"""

from __future__ import annotations

import signal
import sys


def python_command(code: str, *words: str) -> list[str]:
    """The command of a Python that runs ``code`` with ``words`` as ``sys.argv[1:]``."""
    paths = [path for path in sys.path if isinstance(path, str)]  # Python ignores all others
    return [sys.executable, "-c", f"import sys; sys.path[:] = {paths!r}; {code}", *words]


def how_ended(status: int) -> str:
    """Such as "was killed by SIGTERM", of an exit status as `subprocess` gives it."""
    if status >= 0:
        return f"exited with status {status}"
    names = {one.value: one.name for one in signal.Signals}  # most real-time signals have none
    return f"was killed by {names.get(-status, f'signal {-status}')}"
