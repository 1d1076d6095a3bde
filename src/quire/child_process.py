"""The command line of a Python process that Quire starts for itself. Does not know what it runs.

Uses "-c" instead of multiprocessing, so that a user's script needs no __main__ guard. The child has
this process's import path and nothing else, not even its working folder.
"""

from __future__ import annotations

import sys


def python_command(code: str, *words: str) -> list[str]:
    """The command of a Python that runs ``code`` with ``words`` as ``sys.argv[1:]``."""
    paths = [path for path in sys.path if isinstance(path, str)]  # Python ignores all others
    return [sys.executable, "-c", f"import sys; sys.path[:] = {paths!r}; {code}", *words]
