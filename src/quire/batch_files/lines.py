"""The lines of a batch file: requests, and the errors of lines that are not requests.

A line is ``{"custom_id", "method": "POST", "url": "/v1/...", "body": {...}}`` and has no other key:
a field of the request beside its body would be ignored. Knows nothing about how requests are
answered.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, KeysView, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quire.server.unique_keys import RepeatedKey, unique_object

_KEYS = ("custom_id", "method", "url", "body")
_URL = re.compile(r"/v1/[!-~]+")  # what may stand in the first line of an HTTP request

DIGEST_CHARS = 16
_MAX_SHOWN = 80  # characters of a key in a message

Key = str | int  # of a line: its custom_id, or its number if it has none


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchRequest:
    """A line that can be sent."""

    number: int  # from 1 on
    custom_id: str
    path: str
    body: dict[str, Any]

    @property
    def key(self) -> Key:
        return self.custom_id


@dataclass(frozen=True, kw_only=True, slots=True)
class BadLine:
    """A line that cannot be sent, and why."""

    number: int
    custom_id: str | None
    message: str

    @property
    def key(self) -> Key:
        return self.number if self.custom_id is None else self.custom_id


Line = BatchRequest | BadLine


@dataclass(frozen=True, slots=True)
class Mark:
    """What distinguishes a line from another one with the same key."""

    number: int
    digest: str  # of the request and its model; "" if it is too deeply nested


@dataclass(frozen=True, slots=True)
class BatchInput:
    """A file that has been checked: its keys are known, and unique."""

    path: Path
    marks: Mapping[Key, Mark]  # in the lines' order

    @property
    def keys(self) -> KeysView[Key]:
        return self.marks.keys()

    @classmethod
    def check(cls, path: Path, model: str | None = None) -> BatchInput:
        """``ValueError`` for a file that cannot be answered line by line. ``model`` is what the
        command names."""
        try:
            _check_kind(path)
            marks = _marks(path, model)
        except OSError as error:
            reason = error.strerror or error
            raise ValueError(f"--input-file {path} cannot be read: {reason}") from error
        if not marks:
            raise ValueError(f"{path} holds no request; write one JSON object per line")
        return cls(path, marks)


def _check_kind(path: Path) -> None:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(
            f"--input-file {path} is not a regular file, but it is read more than once; store "
            "the requests in a file first"
        )
    if not path.is_file():
        raise ValueError(
            f"{path} is not a file; give a file with a JSON object per line, or its URL"
        )


def _marks(path: Path, model: str | None) -> dict[Key, Mark]:
    marks: dict[Key, Mark] = {}
    for line in read_lines(path):
        if line.key in marks:
            raise ValueError(
                f"line {line.number} of {path.name} has the custom_id {line.key!r} of line "
                f"{marks[line.key].number}; give each line its own, since answers are matched to "
                "lines by it"
            )
        marks[line.key] = Mark(line.number, _digest(line, model))
    return marks


def _digest(line: Line, model: str | None) -> str:
    asked = [line.path, line.body, model] if isinstance(line, BatchRequest) else [line.message]
    try:
        data = json.dumps(asked).encode()
    except RecursionError:  # nested too deeply to be written, though it could be read
        return ""
    return hashlib.sha256(data).hexdigest()[:DIGEST_CHARS]


def read_lines(path: Path) -> Iterator[Line]:
    """The lines one at a time, without the blank ones."""
    with path.open("rb") as file:
        for number, data in enumerate(file, start=1):
            if data.strip():
                yield parse_line(number, data)


def parse_line(number: int, data: bytes) -> Line:
    try:
        content = json.loads(data, object_pairs_hook=unique_object)
    except RepeatedKey as error:
        return BadLine(number=number, custom_id=None, message=f"line {number} {error}")
    except (ValueError, RecursionError) as error:  # of JSON, of UTF-8, or of deep nesting
        return BadLine(number=number, custom_id=None, message=f"line {number} is not JSON: {error}")
    custom_id = content.get("custom_id") if isinstance(content, dict) else None
    if not isinstance(custom_id, str) or not custom_id:
        message = f"line {number} has no custom_id that is a string"
        return BadLine(number=number, custom_id=None, message=message)
    problem = _problem(content)
    if problem is not None:
        message = f"line {number}: {problem}"
        return BadLine(number=number, custom_id=custom_id, message=message)
    return BatchRequest(
        number=number, custom_id=custom_id, path=content["url"], body=content["body"]
    )


def _problem(content: dict[str, Any]) -> str | None:
    """Why a line with a custom_id is not a request; None if it is one."""
    unknown = [key for key in content if key not in _KEYS]
    if unknown:
        return (
            f"a line has no key {unknown[0][:_MAX_SHOWN]!r}, only {', '.join(_KEYS)}; fields of "
            "the request go into its body"
        )
    if content.get("method") != "POST":
        return f"the method must be POST, not {content.get('method')!r}"
    url, body = content.get("url"), content.get("body")
    if not isinstance(url, str) or not _URL.fullmatch(url):
        return f"the url must be a path such as /v1/chat/completions, not {url!r}"
    if not isinstance(body, dict):
        return "the body must be a JSON object"
    if body.get("stream"):
        return "answers are written to a file whole; leave out stream"
    return None
