"""Tries a grammar in a process of its own, which may be ended: nothing can end a thread.

A regular expression, or schemas that must hold together, can keep a compiler busy for hours, take
all memory, or crash. What the canary survives within its time is compiled again where it is used,
in as little time. It is started when first needed; it needs no vocabulary, and for most grammars no
torch.

``python -m quire.structured_outputs.canary`` is that process: a line of JSON in; out one when the
backend is loaded, and one with the error or null.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import select
import subprocess
import sys
import threading
import time
from typing import IO

from quire.structured import GrammarSpec
from quire.structured_outputs import keywords
from quire.structured_outputs.compile import GrammarCompiler, backend_of
from quire.structured_outputs.token_table import BYTES

MEMORY_BYTES = 8 << 30  # of addresses; libraries reserve most of it and never touch it
START_S = 60.0  # until a library is loaded, on a machine that has much else to do


class Canary:
    """One process, one grammar at a time."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: _Lines | None = None  # of the process
        self._is_closed = False

    def try_out(self, spec: GrammarSpec) -> None:
        """``ValueError`` for a grammar that is wrong, or that costs too much."""
        with self._lock:
            process, lines = self._started()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(dataclasses.asdict(spec)).encode() + b"\n")
                process.stdin.flush()
                answer = lines.next(self._limit_s) if lines.next(START_S) else b""
            except OSError:
                answer = b""
            if answer is None or not answer:
                self._end()
                why = f"more than {self._limit_s:g} s" if answer is None else "too much memory"
                raise ValueError(
                    f"the {spec.kind} grammar takes {why} to compile; make it simpler."
                )
        error = json.loads(answer)
        if error is not None:
            raise ValueError(error)

    def close(self) -> None:
        self._is_closed = True
        self._end()

    def _started(self) -> tuple[subprocess.Popen[bytes], _Lines]:
        if self._process is None or self._lines is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert self._process.stdout is not None
            self._lines = _Lines(self._process.stdout)
            if self._is_closed or not self._lines.next(START_S):
                self._end()
                raise RuntimeError("the process that tries grammars out did not start")
        return self._process, self._lines

    def _end(self) -> None:
        process, self._process, self._lines = self._process, None, None
        if process is not None:
            process.kill()
            process.communicate()


def is_slow(spec: GrammarSpec) -> bool:
    """Whether it may take long, or end a process: most grammars cannot."""
    if spec.kind in ("regex", "lark") or spec.whitespace_pattern is not None:
        return True
    if backend_of(spec) == "xgrammar":
        return True
    return any(f'"{word}"' in spec.source for word in keywords.SLOW)


class _Lines:
    """What a process writes, a line at a time and within a time."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._rest = b""

    def next(self, limit_s: float) -> bytes | None:
        """None when the time is over; nothing when the process has ended."""
        ends_at = time.monotonic() + limit_s
        while b"\n" not in self._rest:
            left = ends_at - time.monotonic()
            if left <= 0 or not select.select([self._stream], [], [], left)[0]:
                return None
            data = os.read(self._stream.fileno(), 1 << 16)
            if not data:
                return b""
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    compiler = GrammarCompiler(lambda: BYTES)
    print("ready", flush=True)
    for line in sys.stdin:
        error, spec = None, GrammarSpec(**json.loads(line))
        compiler.prepare(spec)
        print("begun", flush=True)  # the time counts from here
        try:
            compiler.compile(spec)
        except ValueError as problem:
            error = str(problem)
        print(json.dumps(error), flush=True)


if __name__ == "__main__":
    main()
