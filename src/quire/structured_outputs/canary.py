"""Tries a grammar in a process of its own, which can be killed, unlike a thread.

A regular expression, or schemas that apply to the same value, can keep a compiler busy for hours,
take all memory, or crash. A grammar that the canary survives within its time limit is compiled
again where it is used, in as little time. xgrammar's work grows with the vocabulary, so it is given
the model's; bytes suffice for llguidance.

The process starts, and loads a backend, when first needed. That does not count against a grammar's
limit, but the first caller waits for it: a few seconds for xgrammar, which loads torch.

`main` runs in that process. It reads lines of JSON, vocabularies and grammars, and answers each
grammar with a line. It loads the backend and forks a child that tries the grammars; an alarm kills
the child if one takes too long, and the next grammar gets a new child, with everything loaded. So a
slow grammar costs the next one nothing, and a quick one costs little more than where it is used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO

from quire.child_process import python_command
from quire.structured import GrammarSpec
from quire.structured_outputs.backend_llguidance import may_be_slow
from quire.structured_outputs.compile import GrammarCompiler, backend_of
from quire.structured_outputs.token_table import BYTES, TokenTable
from quire.structured_outputs.trial import try_out

MEMORY_BYTES = 8 << 30  # of address space; libraries reserve most of it and never touch it
START_S = 60.0  # until a library is loaded, on a busy machine

_MAIN = "from quire.structured_outputs.canary import main; main()"
# Keeps libraries from starting threads when they are loaded: a process that forks must have none.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class TooSlow(ValueError):
    """The grammar exceeded its time limit."""


class Canary:
    """One process, one grammar at a time."""

    def __init__(self, limit_s: float, load_table: Callable[[], TokenTable] = lambda: BYTES):
        self._limit_s = limit_s
        self._load_table = load_table
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: _Lines | None = None  # of the process
        self._has_table = False  # whether the process was given the vocabulary
        self._is_closed = False

    def try_out(self, spec: GrammarSpec) -> None:
        """``ValueError`` for a grammar that is wrong, or that costs too much."""
        with self._lock:
            is_new = self._process is None
            answer = self._ask(spec)
            if answer == b"" and not is_new:  # it was killed after the last grammar
                answer = self._ask(spec)
            if not answer:
                raise RuntimeError("the process that tries grammars out does not answer")
        fate = _Fate(**json.loads(answer))
        if fate.is_late or fate.has_died:
            why = f"more than {self._limit_s:g} s" if fate.is_late else "too much memory"
            raise (TooSlow if fate.is_late else ValueError)(
                f"the {spec.kind} grammar takes {why} to compile or to follow; make it simpler."
            )
        if fate.error is not None:
            raise ValueError(fate.error)

    def close(self) -> None:
        self._is_closed = True
        self._end()

    def _ask(self, spec: GrammarSpec) -> bytes | None:
        """The answer; None if it took too long, empty if the process has ended. In both cases the
        process is gone."""
        process, lines = self._started()
        assert process.stdin is not None
        answer: bytes | None = b""
        with contextlib.suppress(OSError):  # it has ended
            if backend_of(spec) == "xgrammar" and not self._has_table:
                process.stdin.write(self._table_line)
                self._has_table = True
            asked = {"spec": dataclasses.asdict(spec), "limit_s": self._limit_s}
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
            answer = lines.next(START_S + self._limit_s)
        if not answer:
            self._end()
        return answer

    @functools.cached_property
    def _table_line(self) -> bytes:
        table = self._load_table()
        tokens = [token.decode("latin-1") for token in table.tokens]
        return json.dumps({"tokens": tokens, "ends": table.end_token_ids}).encode() + b"\n"

    def _started(self) -> tuple[subprocess.Popen[bytes], _Lines]:
        if self._is_closed:
            raise RuntimeError("the process that tries grammars out has been closed")
        if self._process is None or self._lines is None:
            self._process = subprocess.Popen(
                python_command(_MAIN),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **_ONE_THREAD},
                start_new_session=True,  # Ctrl-C is not for it; it ends with its owner's pipe
            )
            assert self._process.stdout is not None
            self._lines = _Lines(self._process.stdout)
            if not self._lines.next(START_S):
                self._end()
                raise RuntimeError("the process that tries grammars out did not start")
        return self._process, self._lines

    def _end(self) -> None:
        process, self._process, self._lines = self._process, None, None
        self._has_table = False
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stdin):
                with contextlib.suppress(BrokenPipeError):  # unwritten input
                    pipe.close()  # type: ignore[union-attr]


def is_slow(spec: GrammarSpec) -> bool:
    """Whether a grammar may take long, or crash a process; most cannot."""
    return backend_of(spec) == "xgrammar" or may_be_slow(spec)


class _Lines:
    """Reads a process's output line by line, each within a time limit."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._rest = b""

    def next(self, limit_s: float) -> bytes | None:
        """The next line; None when the time is over, empty when the process has ended."""
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


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Fate:
    """What became of a grammar that was tried."""

    error: str | None = None
    is_late: bool = False
    has_died: bool = False


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    by_backend = dict.fromkeys(("llguidance", "xgrammar"), _compiler_for(BYTES))
    child = _Child(by_backend["llguidance"])
    print("ready", flush=True)
    for line in sys.stdin:
        given = json.loads(line)
        if "tokens" in given:
            tokens = [token.encode("latin-1") for token in given["tokens"]]
            table = TokenTable(tokens=tokens, end_token_ids=tuple(given["ends"]))
            by_backend["xgrammar"] = _compiler_for(table)
            continue
        spec = GrammarSpec(**given["spec"])
        compiler = by_backend[backend_of(spec)]
        compiler.prepare(spec)
        if child.compiler is not compiler:
            child.end()
            child = _Child(compiler)
        fate = child.try_out(spec, given["limit_s"])
        print(json.dumps(dataclasses.asdict(fate)), flush=True)


def _compiler_for(table: TokenTable) -> GrammarCompiler:
    return GrammarCompiler(lambda: table)


class _Child:
    """A fork that tries grammars with what its parent has loaded, until one kills it. There is one
    at a time; it ends with its parent, which alone can write to it."""

    def __init__(self, compiler: GrammarCompiler) -> None:
        self.compiler = compiler
        self._pid: int | None = None

    def try_out(self, spec: GrammarSpec, limit_s: float) -> _Fate:
        is_new = self._pid is None
        fate = self._ask(spec, limit_s)
        if fate.has_died and not is_new:  # it may have died before it was asked
            fate = self._ask(spec, limit_s)
        return fate

    def _ask(self, spec: GrammarSpec, limit_s: float) -> _Fate:
        if self._pid is None:
            self._start()
        with contextlib.suppress(EOFError, BrokenPipeError):
            pickle.dump((spec, limit_s), self._asked)
            self._asked.flush()
            return _Fate(error=pickle.load(self._said))
        status = self.end()
        is_late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
        return _Fate(is_late=is_late, has_died=not is_late)

    def end(self) -> int:
        """End the child; returns its exit status."""
        if self._pid is None:
            return 0
        with contextlib.suppress(BrokenPipeError):
            self._asked.close()
        self._said.close()
        _, status = os.waitpid(self._pid, 0)
        self._pid = None
        return status

    def _start(self) -> None:
        asked, asked_by_parent = os.pipe()
        said_to_parent, said = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(asked_by_parent)
                os.close(said_to_parent)
                _answer_all(self.compiler, os.fdopen(asked, "rb"), os.fdopen(said, "wb"))
            finally:
                os._exit(0)
        os.close(asked)
        os.close(said)
        self._asked = os.fdopen(asked_by_parent, "wb")
        self._said = os.fdopen(said_to_parent, "rb")


def _answer_all(compiler: GrammarCompiler, asked: IO[bytes], said: IO[bytes]) -> None:
    """Try grammars until the input ends; an alarm kills the process if one takes too long."""
    with contextlib.suppress(EOFError):
        while True:
            spec, limit_s = pickle.load(asked)
            signal.setitimer(signal.ITIMER_REAL, limit_s)
            error = _error_of(compiler, spec)
            signal.setitimer(signal.ITIMER_REAL, 0)
            pickle.dump(error, said)
            said.flush()


def _error_of(compiler: GrammarCompiler, spec: GrammarSpec) -> str | None:
    try:
        try_out(compiler, spec)
    except ValueError as problem:
        return str(problem)
    except (OSError, ImportError) as problem:  # whose texts reveal paths
        return f"the {spec.kind} grammar cannot be used: {type(problem).__name__}"
    except BaseException as problem:  # any error is this grammar's own
        return f"the {spec.kind} grammar cannot be used: {type(problem).__name__}: {problem}"
    return None
