"""Metrics of several HTTP processes as one: each writes its own to files of a folder they share.

Prometheus' client decides where values live when it is imported. So the folder's name stands in the
environment, and whoever starts the processes sets it before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_KINDS = ("counter", "gauge_livesum", "histogram")  # of metrics; each has a file a process
_FILE_BYTES = 1 << 20  # several times what a server uses


def prepare_named_folder() -> None:
    """Make the folder that the user has named, if there is one; ``ValueError`` when nothing can be
    written there. What an earlier run has left in it may be wanted, so it stays, with a warning."""
    named = os.environ.get(VARIABLE)
    if not named:
        return
    try:
        Path(named).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=named):
            pass
    except OSError as error:
        raise ValueError(
            f"{VARIABLE}={named}: {error.strerror}; name a folder that can be written, or unset it"
        ) from error
    num_left = len(list(Path(named).glob("*.db")))
    if num_left:
        logger.warning(
            "%s=%s holds %d files (*.db) of another run, and metrics add their values to this "
            "one's; empty it before each start, or unset the variable",
            VARIABLE,
            named,
            num_left,
        )


@contextlib.contextmanager
def shared_folder(parent: str) -> Iterator[None]:
    """Processes started inside add their metrics up; any of them answers for all. The folder is
    made in ``parent``, whose owner removes it; one that the user has named stays."""
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


def folder_is_gone() -> bool:
    """Whether somebody has removed the folder that the processes share."""
    return is_shared() and not Path(os.environ[VARIABLE]).is_dir()


def reserve_files(pid: int) -> None:
    """Make the files of a process that has not opened them yet, with room on the disk;
    ``ValueError``, and no file, if there is none. Prometheus' client would make files with holes
    and map them, and a process that writes to a hole when the disk is full is killed (SIGBUS)."""
    folder = os.environ[VARIABLE]
    files = [Path(folder, f"{kind}_{pid}.db") for kind in _KINDS]
    # Others are left of an earlier process of this number.
    new = [file for file in files if not file.exists()]
    try:
        for file in new:
            file.write_bytes(bytes(_FILE_BYTES))
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder}, the folder in which the HTTP processes count, has been removed; make "
            "it anew, or restart the server"
        ) from error
    except OSError as error:
        for file in new:
            with contextlib.suppress(OSError):
                file.unlink()
        raise ValueError(
            f"metrics need {len(_KINDS) * _FILE_BYTES >> 20} MiB for each HTTP process in "
            f"{folder}: {error.strerror}; make room there, or name another folder with {VARIABLE}"
        ) from error


def process_has_ended(pid: int) -> None:
    """Forget the gauges of a process that has ended; its counts stay."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)
