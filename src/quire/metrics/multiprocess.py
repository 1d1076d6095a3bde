"""Metrics of several HTTP processes as one: each writes its own to files of a folder they share.

Prometheus' client decides where values live when it is imported. So the folder's name stands in the
environment, and whoever starts the processes sets it before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@contextlib.contextmanager
def shared_folder(parent: str) -> Iterator[None]:
    """Processes started inside add their metrics up; any of them answers for all. The folder is
    made in ``parent``, whose owner removes it; one that the user has named is left alone."""
    if os.environ.get(VARIABLE):
        yield
        return
    folder = Path(parent, "metrics")
    folder.mkdir()
    os.environ[VARIABLE] = str(folder)
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def is_shared() -> bool:
    return bool(os.environ.get(VARIABLE))


def process_has_ended(pid: int) -> None:
    """Forget what a process said of the moment; its counts stay."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)
