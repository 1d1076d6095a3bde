"""Compiles grammars in threads, a few at once, each within a time; others wait their turn.

A thread cannot be ended: one that takes too long is given up, and what it makes is kept if it ever
comes. `verify.py` has seen to it that this is rare. Knows nothing about requests.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from quire.structured import Grammar, GrammarSpec
from quire.structured_outputs.cache import GrammarCache, key_of
from quire.structured_outputs.compile import GrammarCompiler

LIMIT_S = 30.0
MAX_THREADS = 2  # that are not given up

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Job:
    """One grammar on its way. ``grammar`` or ``error`` is there when it is done."""

    spec: GrammarSpec
    grammar: Grammar | None = None
    error: str | None = None
    started_at: float = 0.0  # 0: it waits
    is_done: bool = field(default=False)


class Workshop:
    """Its methods are for one thread."""

    def __init__(self, compiler: GrammarCompiler, limit_s: float = LIMIT_S) -> None:
        self._compiler = compiler
        self._limit_s = limit_s
        self._cache = GrammarCache()
        self._jobs: dict[GrammarSpec, Job] = {}  # unfinished
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._finished: deque[Job] = deque()  # by the threads; it is safe to append to
        self._news = threading.Event()

    def order(self, spec: GrammarSpec) -> Job:
        """The grammar, now or later: poll, then look whether it is done."""
        grammar, failure = self._cache.get(spec), self._cache.failure(spec)
        if grammar is not None or failure is not None:
            return Job(key_of(spec), grammar=grammar, error=failure, is_done=True)
        key = key_of(spec)
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = Job(key)
            self._waiting.append(job)
            self._start_waiting()
        return job

    def poll(self) -> bool:
        """Take in what is finished or overdue; whether anything was."""
        self._news.clear()
        has_news = False
        while self._finished:
            self._take(self._finished.popleft())
            has_news = True
        now = time.monotonic()
        for job in [one for one in self._running if now - one.started_at > self._limit_s]:
            job.error = (
                f"the {job.spec.kind} grammar takes more than {self._limit_s:g} s to compile for "
                "this model; make it simpler"
            )
            self._end(job)
            has_news = True
        self._start_waiting()
        return has_news

    def wait(self, seconds: float) -> None:
        """Until something is finished, or the time is over."""
        self._news.wait(seconds)

    def _take(self, job: Job) -> None:
        if job.grammar is not None:
            self._cache.put(job.spec, job.grammar)  # also of one that was given up
        if not job.is_done:
            self._end(job)

    def _end(self, job: Job) -> None:
        job.is_done = True
        if job.grammar is None:
            self._cache.put_failure(job.spec, job.error or "unknown")
        self._running.remove(job)
        del self._jobs[job.spec]

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < MAX_THREADS:
            job = self._waiting.popleft()
            job.started_at = time.monotonic()
            self._running.append(job)
            threading.Thread(
                target=self._compile, args=(job,), name="quire-grammar", daemon=True
            ).start()

    def _compile(self, job: Job) -> None:
        try:
            job.grammar = self._compiler.compile(job.spec)
        except ValueError as error:
            job.error = str(error)
        except BaseException as error:  # whatever it is, it is this grammar's own end
            logger.exception("a grammar could not be compiled")
            job.error = f"the grammar could not be compiled: {type(error).__name__}: {error}"
        self._finished.append(job)
        self._news.set()
