"""The single folder that older ModelScope clients kept per model for all revisions, with a file
that names the one it holds. Makes no network requests."""

from __future__ import annotations

import re
from pathlib import Path

from quire.weights.hub_note import replace_text

# Paths below the cache; in some, dots in a name are replaced.
_PLACES = (
    *("models/{owner}/{spelled}", "hub/models/{owner}/{spelled}", "{owner}/{name}"),
    *("{owner}/{spelled}", "hub/{owner}/{name}", "hub/{owner}/{spelled}", "models/{owner}/{name}"),
)
_FILE = ".mv"
_REVISION = re.compile(r"Revision:([^,\s]+)")  # followed by its creation time


def find_flat(cache: Path, model: str) -> Path | None:
    """The model's folder, in the first place that has one: the order is ModelScope's client's."""
    owner, _, name = model.partition("/")
    spelled = name.replace(".", "___")
    folders = (
        cache / place.format(owner=owner, name=name, spelled=spelled) for place in _PLACES if name
    )
    return next(filter(has_files, folders), None)


def has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def read_revision(folder: Path) -> str | None:
    """The revision that the folder says it holds."""
    file = folder / _FILE
    if not file.is_file():
        return None
    found = _REVISION.match(file.read_text(encoding="utf-8", errors="replace"))
    return None if found is None else found[1]


def change_revision(folder: Path, revision: str) -> None:
    """Record ``revision`` in a folder that names another one."""
    if read_revision(folder) not in (None, revision):
        replace_text(folder / _FILE, f"Revision:{revision}")
