"""Records of measurements: one JSON object per line, written at once so that nothing is lost when
a process dies. Every record has a ``kind``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Record = dict[str, Any]

# Kinds that say how an item of a unit ended; all others carry results.
BEGIN, END, FAILED, SKIPPED = "begin", "end", "failed", "skipped"


class Records:
    """A file that grows by one line at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, kind: str, **fields: Any) -> Record:
        record = {"kind": kind, **fields}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        return record

    def read(self) -> list[Record]:
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [record for line in lines if (record := _parsed(line)) is not None]


def _parsed(line: str) -> Record | None:
    """None for a line that a dying process left half written."""
    try:
        record: Record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record


def of_kind(records: Iterable[Record], kind: str) -> list[Record]:
    return [record for record in records if record["kind"] == kind]


def unfinished_item(records: Iterable[Record], unit: str) -> str | None:
    """The item that a unit's process was working on when it died."""
    item: str | None = None
    for record in records:
        if record.get("unit") == unit:
            if record["kind"] == BEGIN:
                item = record["item"]
            elif record["kind"] in (END, FAILED, SKIPPED):
                item = None
    return item


def settled_items(records: Iterable[Record], unit: str) -> set[str]:
    """Items that need no more work: done, failed or skipped."""
    return {
        record["item"]
        for record in records
        if record.get("unit") == unit and record["kind"] in (END, FAILED, SKIPPED)
    }
