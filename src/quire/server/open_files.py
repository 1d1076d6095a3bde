"""How many files a process may have open: each connection is one, and the usual limit is 1,024."""

from __future__ import annotations

import resource

OTHER_FILES = 256  # open files that are not connections


def allow_connections(count: int) -> int:
    """Raise the soft limit towards what ``count`` connections need, for this process and its later
    children. Returns how many files may be open now, at most the number needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
