"""The note in a snapshot folder that lists what its repository holds. Makes no network requests.

It is written before the first file arrives, so that an interrupted download is recognised offline.
Where files are replaced in place, it also says which still belong to an earlier listing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from uuid import uuid4

_FILE = ".quire.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """What a repository holds, and which files in the folder are out of date."""

    sizes: Mapping[str, int]  # file -> bytes; 0: not listed
    hashes: Mapping[str, str] = field(default_factory=dict)  # file -> hash, where the hub lists one
    # Changed or deleted since an earlier listing, and not yet replaced in the folder.
    stale: list[str] = field(default_factory=list)

    @property
    def gone(self) -> set[str]:
        """Stale files that are no longer in the repository."""
        return set(self.stale).difference(self.sizes)

    def after(self, older: Note | None) -> Note:
        """This listing for a folder with files of an ``older`` one: what changed is stale."""
        if older is None:
            return self
        return replace(self, stale=sorted({*older.stale, *self.changed_from(older)}))

    def changed_from(self, older: Note) -> set[str]:
        """Files of either listing that are not the same in both."""
        names = {*self.sizes, *older.sizes}
        return {name for name in names if self._version(name) != older._version(name)}

    def without_stale(self, names: Collection[str]) -> Note:
        """This note after `names` have been replaced or removed."""
        return replace(self, stale=sorted(set(self.stale).difference(names)))

    def _version(self, name: str) -> tuple[int | None, str | None]:
        return self.sizes.get(name), self.hashes.get(name)


def read_note(folder: Path) -> Note | None:
    file = folder / _FILE
    try:
        return Note(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None
    except (ValueError, TypeError):  # as after a power cut
        return None


def write_note(folder: Path, note: Note) -> None:
    """Write the note, creating the folder if needed."""
    if read_note(folder) == note:
        return
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / _FILE, json.dumps(asdict(note)))


def remove_files(folder: Path, names: Collection[str]) -> None:
    """Remove those of `names` that are files in `folder`; other processes may do the same."""
    for file in list(folder.rglob("*")):  # finds nothing outside, whatever the names say
        if file.is_file() and file.relative_to(folder).as_posix() in names:
            file.unlink(missing_ok=True)


def replace_text(file: Path, text: str) -> None:
    """Replace the file atomically: other processes read the old text or the new one."""
    new = file.with_name(f"{file.name}.{uuid4().hex}.tmp")
    new.write_text(text, encoding="utf-8")
    os.replace(new, file)
