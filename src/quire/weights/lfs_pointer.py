"""Git LFS pointers: the few lines of text that a clone without LFS leaves in place of a file."""

from __future__ import annotations

from pathlib import Path

from quire.errors import ModelLoadError

_START = b"version https://git-lfs"


def refuse_lfs_pointer(path: Path) -> None:
    """ModelLoadError if the file is a pointer."""
    problem = pointer_problem(path)
    if problem is not None:
        raise ModelLoadError(problem)


def pointer_problem(path: Path) -> str | None:
    """That the file is a pointer, with the remedy, or None."""
    with path.open("rb") as file:
        if file.read(len(_START)) != _START:
            return None
    return (
        f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder or "
        "download the file again"
    )
