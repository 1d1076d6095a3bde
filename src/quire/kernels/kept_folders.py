"""Folders of this user for compiled kernels, into which nobody else can put one.

Knows nothing of compilers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def find(name: str) -> Path | None:
    """A file that was kept before; its folder need not be writable any more."""
    for folder_of in (_cache, _temporary):
        with contextlib.suppress(OSError, RuntimeError):
            folder = folder_of()
            _check_owner(folder)
            if (folder / name).exists():
                return folder / name
    return None


def writable_folder() -> Path:
    """The first folder in which files can be kept; RuntimeError if there is none."""
    reasons = []
    for folder_of in (_cache, _temporary):
        try:
            return made_writable(folder_of(), is_private=True)
        except (OSError, RuntimeError) as error:
            reasons.append(str(error.strerror if isinstance(error, OSError) else error))
    raise RuntimeError(
        f"no folder can keep compiled kernels ({'; '.join(reasons)}); let XDG_CACHE_HOME name one "
        "that this user can write"
    )


def made_writable(folder: Path, *, is_private: bool) -> Path:
    """The folder, made if it is missing; OSError if nothing can be kept there, or, if it has to be
    private, if others can."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_private:
        _check_owner(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "it cannot be written")
    return folder


def _check_owner(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(errno.EPERM, "it is not a folder of this user")
    if found.st_mode & _OTHERS_MAY_WRITE:
        raise PermissionError(errno.EPERM, "other users may write to it")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "quire"


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / f"quire-{os.getuid()}"
