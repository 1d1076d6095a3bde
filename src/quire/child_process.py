"""The command line of a Python process that Quire starts for itself. Knows not what it does there.

By "-c" and not by multiprocessing, so that a user's script needs no __main__ guard. The child looks
for imports where this process does and nowhere else, not even in the folder in which it runs.
"""

from __future__ import annotations

import sys


def python_command(code: str, *words: str) -> list[str]:
    """A Python that runs ``code``, where ``sys.argv[1:]`` are ``words``."""
    paths = [path for path in sys.path if isinstance(path, str)]  # Python ignores all others
    return [sys.executable, "-c", f"import sys; sys.path[:] = {paths!r}; {code}", *words]
