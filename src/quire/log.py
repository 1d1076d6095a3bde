"""Logging: one line per record on stderr, plain or JSON, under the logger ``quire``.

A program that has set up logging itself keeps its own set-up. Knows nothing about what is logged.
"""

from __future__ import annotations

import atexit
import io
import json
import logging
import os
import select
import stat
import sys
import time
import traceback
from typing import Any

from quire import env
from quire.standard_streams import Stderr

_FORMAT = "%(levelname)s %(asctime)s [%(name)s] %(message)s"
_DATE = "%m-%d %H:%M:%S"
_PATIENCE_S = 1.0  # with a pipe that is full: nobody reads it, or not fast enough


def setup() -> None:
    """Send ``quire``'s records to stderr, unless the program has handlers of its own. A second call
    applies the current format, since warnings may come before ``--log-format`` is read."""
    logger = logging.getLogger("quire")
    if logger.level == logging.NOTSET:
        logger.setLevel(env.LOGGING_LEVEL.get())
    for handler in logger.handlers:
        if isinstance(handler, _StderrHandler):
            handler.setFormatter(_formatter())
    if not logger.hasHandlers():
        _take(logger)
        atexit.register(_forget_unwritten)


def setup_http(level: str) -> None:
    """Do the same for uvicorn and OpenTelemetry. At "info" uvicorn only reports its start, which
    Quire logs itself, so "info" shows its warnings only; "debug" and "trace" show more."""
    logger = logging.getLogger("uvicorn")
    logger.setLevel(_HTTP_LEVELS.get(level, level.upper()))
    for other in (logger, logging.getLogger("opentelemetry")):
        if not other.handlers:
            _take(other)
    logging.getLogger("quire.access").setLevel(logging.INFO)  # a flag turns it on


def last_words(program: str, error: str, cause: BaseException | None = None) -> None:
    """Write to stderr why a program ends, in the log's format and whatever its level. ``cause`` is
    shown with its traceback, before the error in plain text and in the same object in JSON."""
    words = f"{program}: error: {error}"
    if not _is_json():
        trace_lines = [] if cause is None else traceback.format_exception(cause)
        _write("".join([*trace_lines, words]))
        return
    trace = None if cause is None else (type(cause), cause, cause.__traceback__)
    record = logging.LogRecord("quire", logging.CRITICAL, "", 0, words, None, trace)
    _write(JSONFormatter().format(record))


_HTTP_LEVELS: dict[str, int | str] = {"trace": 5, "info": logging.WARNING}


def _take(logger: logging.Logger) -> None:
    handler = _StderrHandler()
    handler.setFormatter(_formatter())
    logger.addHandler(handler)
    logger.propagate = False  # else a root handler added later would print lines twice


def _formatter() -> logging.Formatter:
    return JSONFormatter() if _is_json() else logging.Formatter(_FORMAT, _DATE)


def _is_json() -> bool:
    return env.LOG_FORMAT.get() == "json"


class JSONFormatter(logging.Formatter):
    """One JSON object a line; a record's ``extra={"fields": {...}}`` stands beside its message."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _iso_time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            **vars(record).get("fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def _iso_time(seconds: float) -> str:
    milliseconds = int(seconds * 1000) % 1000
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"


class _StderrHandler(logging.Handler):
    """Writes to whatever ``sys.stderr`` is at that moment. When its reader has stalled, lines are
    dropped until it reads again, and then counted in a line of their own: the log must not stop the
    program."""

    def __init__(self) -> None:
        super().__init__()
        self._unwritten = b""  # of the line at which the reader has stalled
        self._num_lost = 0  # lines since then

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        if self._unwritten:
            pipe = _pipe()
            self._unwritten = b"" if pipe is None else _to_pipe(pipe, self._unwritten, 0.0)
            if self._unwritten:
                self._num_lost += 1
                return
        if self._num_lost:
            line = f"{self._loss()}\n{line}"
            self._num_lost = 0
        self._unwritten = _write(line)

    def _loss(self) -> str:
        words = f"{self._num_lost} lines of the log are lost: its reader had stalled"
        return self.format(
            logging.LogRecord("quire.log", logging.WARNING, "", 0, words, None, None)
        )


def _write(text: str) -> bytes:
    """Write a line to stderr; returns what of it a stalled reader has left."""
    stderr, pipe = Stderr(), _pipe()
    if pipe is not None:
        line = (text + "\n").encode(stderr.encoding, "backslashreplace")
        return _to_pipe(pipe, line, _PATIENCE_S)
    stderr.write(text + "\n")
    stderr.flush()
    return b""


def _pipe() -> int | None:
    """The descriptor of stderr if that is a pipe or a socket, whose reader may stall."""
    if not isinstance(sys.stderr, io.TextIOWrapper):  # a notebook's has another's descriptor
        return None
    try:
        descriptor = sys.stderr.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError):  # closed, or in memory
        return None
    return descriptor if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None


def _to_pipe(pipe: int, data: bytes, wait_s: float) -> bytes:
    """Write, but wait no longer than this for a full pipe; returns what is left. O_NONBLOCK would
    be simpler, but other programs may share the pipe, and would get the flag too."""
    ready = select.poll()
    ready.register(pipe, select.POLLOUT)
    try:
        while data and ready.poll(wait_s * 1000):
            # A pipe that is ready takes so many bytes without blocking.
            data = data[os.write(pipe, data[: select.PIPE_BUF]) :]
    except OSError:  # there is no reader any more
        return b""
    return data


def _forget_unwritten() -> None:
    """Discard what stderr cannot take: Python would retry at exit, and exit with an error."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    except (ValueError, AttributeError):
        pass
