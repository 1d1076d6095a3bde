"""How much CPU time other processes have used, from /proc/PID/stat: Linux only."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# Indices among the fields after the process's name: see proc_pid_stat(5).
_PARENT, _USER, _SYSTEM = 1, 11, 12


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process, without its children."""
    fields = _fields(pid)
    return (int(fields[_USER]) + int(fields[_SYSTEM])) / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> list[int]:
    """The child processes of a process."""
    children = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the process has ended
            if int(_fields(int(folder.name))[_PARENT]) == pid:
                children.append(int(folder.name))
    return children


def _fields(pid: int) -> list[str]:
    """The fields after the process's name, which may itself contain blanks and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
