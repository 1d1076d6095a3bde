"""The file of answers: reads what it already holds, then appends one whole line at a time.

A run that was killed leaves whole lines and perhaps a torn last one, which is cut off. Lines are
removed or reordered only by writing a new file that replaces this one. One run at a time may write.
The id of a record holds a digest of its request, which shows when that has changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from quire.batch_files.lines import DIGEST_CHARS, Key, Mark

LINE_ERROR = "invalid_line"
KEY_REFUSED = frozenset({401, 403})  # statuses that concern the whole run, not one line
_SERVER_FAILED = 500  # and above: statuses that say nothing about the request
_ID_BEGIN = "batch_req_"
_MARKED_ID = re.compile(rf"{_ID_BEGIN}([0-9a-f]{{{DIGEST_CHARS}}})_.+")
_RECORD_BEGIN = b'{"id": "batch_req_'  # as the runner makes them


class OutputFile:
    """Open from construction to `close`; ``done`` are the keys whose answers stand in it."""

    def __init__(
        self,
        path: Path,
        known: Collection[Key],
        *,
        marks: Mapping[Key, Mark] | None = None,
        overwrite: bool = False,
    ) -> None:
        """``known`` are the keys of the input, ``marks`` what its lines ask. ``ValueError`` for a
        file with answers to other keys, or good answers to lines that have changed."""
        self._path = path
        self._marks = marks or {}
        self._file = _opened(path)
        try:
            self._lock()
            if overwrite:
                self._file.truncate(0)
            self.done: set[Key] = set()
            self.num_failed = 0  # of ``done``
            # Failures whose requests are asked again, counted by reason.
            self.dropped: Counter[str] = Counter()
            self._read(known)
        except BaseException:
            self._file.close()
            raise

    def write(self, record: dict[str, Any]) -> None:
        """Append a record, unbuffered: a later kill does not lose it."""
        mark = self._marks.get(_key_of(record))
        if mark is not None and mark.digest:
            rest = record["id"].removeprefix(_ID_BEGIN)
            record = {**record, "id": f"{_ID_BEGIN}{mark.digest}_{rest}"}
        try:
            data = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can express
            data = json.dumps(record).encode() + b"\n"
        with _writing(self._path):
            while data:
                data = data[self._file.write(data) :]

    def put_in_order(self, keys: Iterable[Key]) -> None:
        """Sort the lines by ``keys``; those of a later run are still at the end."""
        places: dict[Key, tuple[int, int]] = {}  # offset and size
        offset = 0
        with self._path.open("rb") as lines:
            for line in lines:
                places[_key_of(json.loads(line))] = offset, len(line)
                offset += len(line)
            wanted = [key for key in keys if key in places]
            if wanted != list(places):
                self._rewrite(_read_at(lines, *places[key]) for key in wanted)

    @property
    def num_dropped(self) -> int:
        return self.dropped.total()

    def close(self) -> None:
        with self._file, _writing(self._path):
            os.fsync(self._file.fileno())

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
            # Another run may just have put a new file in the place of this one.
            is_mine = os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except OSError:
            is_mine = False
        if not is_mine:
            raise ValueError(f"another run is writing {self._path}; wait for its end")

    def _read(self, known: Collection[Key]) -> None:
        whole = 0  # bytes of lines that are not torn
        dropped: set[int] = set()  # line numbers
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                record = _whole_record(line)
                if record is None:
                    if not _is_torn(line) or lines.read(1):
                        raise self._foreign(number, "is not an answer of a batch")
                    break  # the last one, torn
                key = _key_of(record)
                whole += len(line)
                if key not in known:
                    if _was_sent(record):
                        raise self._foreign(number, f"answers {key!r}, which is not in the input")
                    dropped.add(number)  # of a line that has been mended or deleted
                    continue
                reason = _why_asked_again(record, self._has_changed(record, key))
                if reason is not None:
                    dropped.add(number)
                    self.dropped[reason] += 1
                    continue
                self.done.add(key)
                self.num_failed += is_failure(record)
        self._file.truncate(whole)
        self._file.seek(whole)
        if dropped:
            with self._path.open("rb") as lines:
                self._rewrite(line for n, line in enumerate(lines, start=1) if n not in dropped)

    def _has_changed(self, record: dict[str, Any], key: Key) -> bool:
        """Whether the input line of this key has changed; ``ValueError`` if it was answered
        successfully."""
        mark, marked = self._marks.get(key), _MARKED_ID.fullmatch(str(record.get("id")))
        if mark is None or marked is None or mark.digest in ("", marked[1]):
            return False
        if not is_failure(record):
            raise ValueError(
                f"line {mark.number} of the input, or its model, differs from the one answered in "
                f"{self._path}; choose another output file, or --overwrite"
            )
        return True

    def _rewrite(self, lines: Iterable[bytes]) -> None:
        """Replace the content with ``lines``; a kill leaves all of the old or all of the new."""
        with _writing(self._path):
            self._replace(lines)

    def _replace(self, lines: Iterable[bytes]) -> None:
        path = self._path.resolve()  # a symbolic link is kept
        new_path = path.with_name(f".{path.name}.new")
        new = new_path.open("w+b", buffering=0)
        try:
            fcntl.flock(new, fcntl.LOCK_EX)  # before others can find it
            shutil.copymode(path, new_path)
            with new_path.open("wb") as copy:
                copy.writelines(lines)
            os.fsync(new.fileno())
            new.seek(0, os.SEEK_END)
            new_path.replace(path)
        except BaseException:
            new.close()
            new_path.unlink(missing_ok=True)
            raise
        self._file.close()
        self._file = new

    def _foreign(self, number: int, problem: str) -> ValueError:
        return ValueError(
            f"line {number} of {self._path} {problem}; choose another output file, or --overwrite"
        )


def is_failure(record: dict[str, Any]) -> bool:
    """Whether a request has no good answer."""
    response = record["response"]
    return response is None or response["status_code"] != 200


def _opened(path: Path) -> FileIO:
    """Open the file; ``ValueError`` unless it is a regular one, to be read again and truncated."""
    try:
        if path.is_dir():
            raise ValueError(f"--output-file {path} is a folder; give a file")
        if path.exists() and not path.is_file():
            raise ValueError(
                f"--output-file {path} is not a regular file, which a later run needs to find what "
                "has been answered; give one"
            )
        if not path.parent.is_dir():
            raise ValueError(f"--output-file {path}: there is no folder {path.parent}; make it")
        return path.open("r+b" if path.exists() else "w+b", buffering=0)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"--output-file {path} cannot be opened: {reason}") from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an `OSError`, such as for a full disk, into a ``ValueError`` that says how to go on."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"--output-file {path} cannot be written: {error.strerror or error}; once it can, the "
            "same command goes on where it stopped"
        ) from error


def _why_asked_again(record: dict[str, Any], has_changed: bool) -> str | None:
    """Why a line is asked again, to follow "lines that"; None if its answer is kept."""
    response = record["response"]
    if has_changed:
        return "have changed since they failed"
    if response is not None and response["status_code"] >= _SERVER_FAILED:
        return "the server had failed on"
    if response is not None and response["status_code"] in KEY_REFUSED:
        return "the server had refused the key for"
    return None


def _was_sent(record: dict[str, Any]) -> bool:
    """Whether the line of a record was a request, and not an error of its own."""
    error = record["error"]
    return not (isinstance(error, dict) and error.get("code") == LINE_ERROR)


def _is_torn(line: bytes) -> bool:
    """Whether a line is the beginning of a record: other content must not be cut off."""
    size = min(len(line), len(_RECORD_BEGIN))
    return not line.endswith(b"\n") and line[:size] == _RECORD_BEGIN[:size]


def _whole_record(line: bytes) -> dict[str, Any] | None:
    """The record in a line; None for one that is torn, or is not a record."""
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
        response is None
        or (isinstance(response, dict) and isinstance(response.get("status_code"), int))
    )


def _key_of(record: dict[str, Any]) -> Key:
    """The key of the request that a record answers."""
    custom_id, error = record["custom_id"], record["error"]
    return error["line"] if custom_id is None else custom_id


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
