"""How much CPU time other processes have taken, from /proc/PID/stat: Linux only."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# Of what follows the name, from the process's state on: see proc_pid_stat(5).
_PARENT, _USER, _SYSTEM = 1, 11, 12


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process; children are not in it."""
    fields = _fields(pid)
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> list[int]:
    """The processes that a process has started, whichever thread of it did."""
    children = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            if int(_fields(int(folder.name))[_PARENT]) == pid:
                children.append(int(folder.name))
    return children


def _fields(pid: int) -> list[str]:
    """A name may have blanks and brackets in it, so what is before its end is cut off."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
