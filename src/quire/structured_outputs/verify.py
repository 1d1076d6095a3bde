"""Says whether a constraint can be followed, before a request is taken. Knows no model.

Every constraint is tried out once, in one of four threads, each with its queue and its canary,
since nothing predicts how long a grammar takes, and only a process can be killed. The first three
give it a moment: most need no more, and those that may be slow delay none that look quick. One that
does need more waits for the last canary, behind others of its kind.

    quick, a moment       --.----------------------->  verdict
    llguidance, a moment  --+----------------------->  verdict
    xgrammar, a moment    --+----------------------->  verdict
                            '--  the whole limit  -->  verdict
"""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial

from quire.errors import RequestError
from quire.structured import GrammarSpec
from quire.structured_outputs.canary import Canary, TooSlow, is_slow
from quire.structured_outputs.check import check, check_size
from quire.structured_outputs.compile import backend_of, require_backend
from quire.structured_outputs.token_table import BYTES, TokenTable

LIMIT_S = 5.0
MOMENT_S = 0.5
MAX_KNOWN = 4096
MAX_WAITING = 128  # in each queue; each may take as long as its limit
QUICK_FACTOR = 4  # times as many quick ones may wait: they take milliseconds

Verdict = str | None  # what is wrong
TryOut = Callable[[GrammarSpec], None]


class TooManyGrammars(RequestError):
    """More new grammars arrive than can be tried out; there may be room later."""


class VerifierClosed(RuntimeError):
    """The verifier was closed: nothing is tried out any more."""


class GrammarVerifier:
    """Checks grammars and remembers its verdicts. May be called from several threads."""

    def __init__(
        self,
        load_table: Callable[[], TokenTable] = lambda: BYTES,  # of the model's vocabulary
        limit_s: float = LIMIT_S,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        moment_s = min(MOMENT_S, limit_s)
        last = Canary(limit_s, load_table)
        first = {name: Canary(moment_s, load_table) for name in ("quick", "llguidance", "xgrammar")}
        behind = _Lane(last.try_out, max_waiting)
        room = {"quick": QUICK_FACTOR * max_waiting}
        self._lanes = {
            name: _Lane(canary.try_out, room.get(name, max_waiting), behind)
            for name, canary in first.items()
        }
        self._lock = threading.Lock()
        self._known: OrderedDict[GrammarSpec, Verdict] = OrderedDict()
        self._waiting: dict[GrammarSpec, Future[Verdict]] = {}
        lanes, canaries = [*self._lanes.values(), behind], [*first.values(), last]
        self.close = weakref.finalize(self, _close, lanes, canaries)

    def verify(self, spec: GrammarSpec) -> None:
        """``ValueError`` if the grammar cannot be followed, within the time limit if no others
        wait; the first call also waits some seconds for processes to start. `VerifierClosed` once
        closed, even while waiting."""
        _raise(self._verdict(spec, is_patient=True).result())

    async def verify_beside(self, spec: GrammarSpec) -> None:
        """`verify` without blocking the event loop; `TooManyGrammars` if too many wait already."""
        verdict = self._verdict(spec, is_patient=False)
        # Others may wait for the same verdict, which a caller that gives up must not cancel.
        _raise(await asyncio.shield(asyncio.wrap_future(verdict)))

    def _verdict(self, spec: GrammarSpec, *, is_patient: bool) -> Future[Verdict]:
        try:
            check_size(spec)  # before anything that takes longer with the size
        except ValueError as error:
            return _done(str(error))
        with self._lock:
            if spec in self._known:
                self._known.move_to_end(spec)
                return _done(self._known[spec])
            if spec in self._waiting:
                return self._waiting[spec]
            lane = self._lanes[backend_of(spec) if is_slow(spec) else "quick"]
            if not is_patient:
                lane.require_room()
            future = self._waiting[spec] = lane.submit(spec)
        future.add_done_callback(partial(self._remember, spec))
        return future

    def _remember(self, spec: GrammarSpec, verdict: Future[Verdict]) -> None:
        with self._lock:
            del self._waiting[spec]
            if verdict.exception() is None:
                self._known[spec] = verdict.result()
                if len(self._known) > MAX_KNOWN:
                    self._known.popitem(last=False)


class _Lane:
    """Tries grammars one after the other, in a daemon thread. One that exceeds the time limit goes
    to the lane ``behind``."""

    def __init__(self, try_out: TryOut, max_waiting: int, behind: _Lane | None = None) -> None:
        self.try_out = try_out
        self.behind = behind
        self.is_closed = False
        self._max_waiting = max_waiting
        self.jobs: queue.SimpleQueue[tuple[GrammarSpec, Future[Verdict]] | None]
        self.jobs = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def require_room(self) -> None:
        """Raise `TooManyGrammars` if the queue is full."""
        num_waiting = self.jobs.qsize()
        if num_waiting >= self._max_waiting:
            raise TooManyGrammars(
                f"{num_waiting} new grammars wait to be tried out already, the limit is "
                f"{self._max_waiting}; try again later"
            )

    def submit(self, spec: GrammarSpec) -> Future[Verdict]:
        future: Future[Verdict] = Future()
        self.put(spec, future)
        return future

    def put(self, spec: GrammarSpec, future: Future[Verdict]) -> None:
        with self._lock:  # several lanes put into the one behind them
            is_open = not self.is_closed
            if is_open:
                self._start()
                self.jobs.put((spec, future))
        if not is_open:  # outside the lock, which a callback may need
            future.set_exception(VerifierClosed())

    def close(self) -> None:
        """Make all waiting jobs fail, and take no more."""
        with self._lock:
            self.is_closed = True
            self.jobs.put(None)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=_work, args=(self,), name="quire-verify", daemon=True
            )
            self._thread.start()


def _work(lane: _Lane) -> None:
    while _work_off(lane, lane.jobs.get()):
        pass  # while it waits, it holds no reference that keeps the verifier alive


def _work_off(lane: _Lane, job: tuple[GrammarSpec, Future[Verdict]] | None) -> bool:
    """Try one job; False for the end of the queue."""
    if job is None:
        return False
    spec, future = job
    try:
        if lane.is_closed:
            raise VerifierClosed
        verdict = _verdict_of(spec, lane.try_out)
    except TooSlow as slow:
        _put_behind(lane.behind, spec, future, slow)
    except BaseException as error:  # whoever waits for it is told
        future.set_exception(VerifierClosed() if lane.is_closed else error)
    else:
        future.set_result(verdict)
    return True


def _put_behind(
    lane: _Lane | None, spec: GrammarSpec, future: Future[Verdict], slow: TooSlow
) -> None:
    if lane is None:
        future.set_result(str(slow))
        return
    try:
        lane.require_room()
    except TooManyGrammars as error:
        future.set_exception(error)
    else:
        lane.put(spec, future)


def _verdict_of(spec: GrammarSpec, try_out: TryOut) -> Verdict:
    try:
        check(spec)
        require_backend(spec)
        try_out(spec)
    except TooSlow:
        raise
    except ValueError as error:
        return str(error)
    return None


def _close(lanes: Iterable[_Lane], canaries: Iterable[Canary]) -> None:
    for lane in lanes:
        lane.close()
    for canary in canaries:
        canary.close()


def _done(verdict: Verdict) -> Future[Verdict]:
    future: Future[Verdict] = Future()
    future.set_result(verdict)
    return future


def _raise(verdict: Verdict) -> None:
    if verdict is not None:
        raise ValueError(verdict)
