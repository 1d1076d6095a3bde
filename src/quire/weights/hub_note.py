"""The note that a snapshot folder holds, of what its repository has. Asks no hub.

It is written before the first file comes, so that a download that broke off is known without the
hub. Where files are replaced in place it also tells which are of an earlier listing.
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
    """What a repository holds, and which files of the folder are not of it."""

    sizes: Mapping[str, int]  # file -> bytes; 0: the listing says none
    hashes: Mapping[str, str] = field(default_factory=dict)  # file -> hash, where the hub lists one
    # Changed or gone since an earlier listing, and not yet replaced.
    stale: list[str] = field(default_factory=list)

    @property
    def gone(self) -> set[str]:
        """Stale files that the repository holds no more."""
        return set(self.stale).difference(self.sizes)

    def after(self, older: Note | None) -> Note:
        """This listing, for a folder with files of an older one."""
        if older is None:
            return self
        return replace(self, stale=sorted({*older.stale, *self.changed_from(older)}))

    def changed_from(self, older: Note) -> set[str]:
        """Files of either listing that are not the same in both."""
        names = {*self.sizes, *older.sizes}
        return {name for name in names if self._version(name) != older._version(name)}

    def without_stale(self, names: Collection[str]) -> Note:
        """`names` have been replaced or removed."""
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
    """Makes the folder if need be."""
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
    """Other processes read the old text or the new one, never a part."""
    new = file.with_name(f"{file.name}.{uuid4().hex}.tmp")
    new.write_text(text, encoding="utf-8")
    os.replace(new, file)
