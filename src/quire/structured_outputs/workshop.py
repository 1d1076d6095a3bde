"""Compiles grammars in threads, a few at once, each within a time limit; others wait their turn.

A thread cannot be killed: one that takes too long is given up, and its grammar is kept if it is
ever finished. `verify.py` makes that rare. Grammars that may be slow delay only each other. Knows
nothing about requests.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field

from quire.structured import Grammar, GrammarSpec
from quire.structured_outputs.cache import GrammarCache
from quire.structured_outputs.canary import is_slow
from quire.structured_outputs.compile import GrammarCompiler

LIMIT_S = 30.0
MAX_THREADS = 2  # of each kind, slow or not, apart from those given up
MAX_GIVEN_UP = 4  # of each kind; they go on, with their memory and a core

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Job:
    """One grammar that is being compiled. ``grammar`` or ``error`` is set when it is done."""

    spec: GrammarSpec
    grammar: Grammar | None = None
    error: str | None = None
    num_waiting: int = 1  # requests that wait for it
    started_at: float = 0.0  # 0: it waits
    is_done: bool = field(default=False)
    is_slow: bool = field(init=False)  # it may be

    def __post_init__(self) -> None:
        self.is_slow = is_slow(self.spec)


class Workshop:
    """Compiles and caches grammars. Its methods are for one thread."""

    def __init__(self, compiler: GrammarCompiler, limit_s: float = LIMIT_S) -> None:
        self._compiler = compiler
        self._limit_s = limit_s
        self._cache = GrammarCache()
        self._jobs: dict[GrammarSpec, Job] = {}  # unfinished
        self._waiting: dict[bool, OrderedDict[GrammarSpec, Job]] = {  # by `is_slow`
            False: OrderedDict(),
            True: OrderedDict(),
        }
        self._running: list[Job] = []
        self._finished: deque[Job] = deque()  # by the threads; it is safe to append to
        self._news = threading.Event()
        self._num_given_up: Counter[bool] = Counter()  # threads that still run, by `is_slow`

    def warm_up(self) -> None:
        """Load what nearly every grammar needs. For a large vocabulary that takes a second, during
        most of which no other thread runs."""
        self._compiler.warm_up()

    def order(self, spec: GrammarSpec) -> Job:
        """Order a grammar. The job is done at once if the result is cached, else after a later
        `poll`."""
        grammar, failure = self._cache.get(spec), self._cache.failure(spec)
        if grammar is not None or failure is not None:
            return Job(spec, grammar=grammar, error=failure, is_done=True)
        job = self._jobs.get(spec)
        if job is not None:
            job.num_waiting += 1
            return job
        job = self._jobs[spec] = Job(spec)
        self._waiting[job.is_slow][spec] = job
        self._start_waiting()
        return job

    def forget(self, job: Job) -> None:
        """One request no longer waits for the job. A job that has begun goes on: it may be wanted
        later."""
        job.num_waiting -= 1
        waiting = self._waiting[job.is_slow]
        if job.num_waiting == 0 and waiting.get(job.spec) is job:
            del waiting[job.spec], self._jobs[job.spec]

    def poll(self) -> bool:
        """Take in jobs that are finished or overdue; True if there were any."""
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
            self._num_given_up[job.is_slow] += 1
            self._running.remove(job)
            self._cache.put_failure(job.spec, job.error)
            self._end(job)
            has_news = True
        return self._start_waiting() or has_news

    def wait(self, seconds: float) -> None:
        """Wait until a job is finished, at most so many seconds."""
        self._news.wait(seconds)

    def _take(self, job: Job) -> None:
        if job.grammar is not None:
            self._cache.put(job.spec, job.grammar)  # also of one that was given up
        if job.is_done:
            self._num_given_up[job.is_slow] -= 1
            return
        if job.grammar is None:
            self._cache.put_failure(job.spec, job.error or "unknown")
        self._running.remove(job)
        self._end(job)

    def _end(self, job: Job) -> None:
        job.is_done = True
        del self._jobs[job.spec]

    def _start_waiting(self) -> bool:
        """Start waiting jobs for which there are threads; True if any failed for lack of room."""
        has_ended = False
        num_running = Counter(job.is_slow for job in self._running)
        for kind, waiting in self._waiting.items():
            num_given_up = self._num_given_up[kind]
            while waiting and num_running[kind] < MAX_THREADS:
                _, job = waiting.popitem(last=False)
                if num_given_up < MAX_GIVEN_UP:
                    num_running[kind] += 1
                    self._start(job)
                    continue
                job.error = (
                    f"{num_given_up} grammars that took too long are still being compiled, so a "
                    "new one finds no room; use simpler grammars, or try again later"
                )
                self._end(job)
                has_ended = True
        return has_ended

    def _start(self, job: Job) -> None:
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
        except BaseException as error:  # any error ends only this grammar
            logger.exception("a grammar could not be compiled")
            job.error = f"the grammar could not be compiled: {type(error).__name__}: {error}"
        self._finished.append(job)
        self._news.set()
