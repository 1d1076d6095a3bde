"""Logging: one plain line per record on stderr, under the logger ``quire``.

A program that has set up logging itself keeps its own set-up. Knows nothing about what is logged.
"""

from __future__ import annotations

import logging
import sys

from quire import env

_FORMAT = "%(levelname)s %(asctime)s [%(name)s] %(message)s"
_DATE = "%m-%d %H:%M:%S"


def setup() -> None:
    """Send ``quire``'s records to stderr, unless the program has handlers of its own."""
    logger = logging.getLogger("quire")
    if logger.level == logging.NOTSET:
        logger.setLevel(env.LOGGING_LEVEL.get())
    if logger.hasHandlers():
        return
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter(_FORMAT, _DATE))
    logger.addHandler(handler)
    logger.propagate = False  # a root handler that comes later would print every line twice


class _StderrHandler(logging.Handler):
    """Writes to whatever ``sys.stderr`` is at that moment, so that redirections are honoured."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")
        sys.stderr.flush()
