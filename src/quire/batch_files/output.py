"""The file of answers: what stands in it already, and one whole line at a time after that.

A run that was killed leaves whole lines and perhaps a torn last one, which is cut off: each
request's line is there or is not. One run at a time may write.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

from quire.batch_files.lines import Key

LINE_ERROR = "invalid_line"
_RECORD_BEGIN = b'{"id": "batch_req_'  # as the runner makes them


class OutputFile:
    """Open from construction to `close`; ``done`` are the keys whose answers stand in it."""

    def __init__(self, path: Path, known: Collection[Key], *, overwrite: bool = False) -> None:
        """``known`` are the keys of the input: an answer to anything else is another input's."""
        self._path = path
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        try:
            self._lock()
            if overwrite:
                self._file.truncate(0)
            self.done: set[Key] = set()
            self.num_failed = 0  # of those
            self._read(known)
        except BaseException:
            self._file.close()
            raise

    def write(self, record: dict[str, Any]) -> None:
        """In one piece, and at once: a later kill does not take it back."""
        try:
            data = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can spell
            data = json.dumps(record).encode() + b"\n"
        while data:
            data = data[self._file.write(data) :]

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"another run is writing {self._path}; wait for its end") from None

    def _read(self, known: Collection[Key]) -> None:
        whole = 0  # bytes of lines that stay
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                record = _whole_record(line)
                if record is None:
                    if not _is_torn(line) or lines.read(1):
                        raise self._foreign(number, "is no answer of a batch")
                    break  # the last one, torn
                key = _key_of(record)
                if key not in known:
                    raise self._foreign(number, f"answers {key!r}, which the input does not have")
                self.done.add(key)
                self.num_failed += is_failure(record)
                whole += len(line)
        self._file.truncate(whole)
        self._file.seek(whole)

    def _foreign(self, number: int, problem: str) -> ValueError:
        return ValueError(
            f"line {number} of {self._path} {problem}; choose another output file, or --overwrite"
        )


def is_failure(record: dict[str, Any]) -> bool:
    """Whether a request has no good answer."""
    response = record["response"]
    return response is None or response["status_code"] != 200


def _is_torn(line: bytes) -> bool:
    """Whether it is the beginning of a record: what stands in a file of other things is kept."""
    size = min(len(line), len(_RECORD_BEGIN))
    return not line.endswith(b"\n") and line[:size] == _RECORD_BEGIN[:size]


def _whole_record(line: bytes) -> dict[str, Any] | None:
    """What a line holds; None for one that is torn, or no record of ours."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if _is_ours(record) else None


def _is_ours(record: Any) -> bool:
    if not isinstance(record, dict) or not {"custom_id", "response", "error"} <= record.keys():
        return False
    custom_id, response, error = record["custom_id"], record["response"], record["error"]
    has_key = isinstance(custom_id, str) or (
        custom_id is None and isinstance(error, dict) and isinstance(error.get("line"), int)
    )
    return has_key and (
        response is None or (isinstance(response, dict) and "status_code" in response)
    )


def _key_of(record: dict[str, Any]) -> Key:
    """Of the request that a record answers."""
    custom_id, error = record["custom_id"], record["error"]
    return error["line"] if custom_id is None else custom_id
