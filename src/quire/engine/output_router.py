"""The thread that carries outputs from an engine core to many asyncio consumers.

It detokenizes as it goes, so that event loops only move finished outputs. A slow consumer finds
everything it missed in one output and delays nobody. While no event loop has taken the last
outputs, no new ones are made, so that several steps are processed together, which costs less. Knows
nothing about prompts.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable

from quire.engine.client import EngineClient
from quire.engine.front import Front
from quire.engine.input_processor import ProcessedRequest
from quire.engine.messages import Abort, AddRequest, Finish
from quire.errors import EngineDeadError
from quire.outputs import RequestOutput
from quire.step_output import CompletionDelta

_Parcel = tuple["OutputCollector", RequestOutput]

_LONGEST_WAIT_S = 0.1  # for event loops: one may be blocked, or closed


class OutputCollector:
    """What one consumer has not read yet, at most one output. Lives in its consumer's loop."""

    def __init__(self, request_id: str, *, joins_deltas: bool) -> None:
        self.request_id = request_id
        self.loop = asyncio.get_running_loop()
        self._joins_deltas = joins_deltas
        self._output: RequestOutput | None = None
        self._error: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None

    async def get(self) -> RequestOutput:
        """The next output; raises when the engine has died. For one task at a time."""
        while self._output is None:
            if self._error is not None:
                raise self._error
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        output, self._output = self._output, None
        return output

    def put(self, output: RequestOutput) -> None:
        if self._output is None:
            self._output = output
        else:
            self._output.add(output, aggregate=self._joins_deltas)
        self._wake()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class OutputRouter:
    """Requests in flight and their collectors; methods may be called from any thread."""

    def __init__(self, client: EngineClient, front: Front) -> None:
        self._client = client
        self._front = front
        self._collectors: dict[str, OutputCollector] = {}
        # Over the front's outputs, the collectors, and the order in which outputs are delivered.
        self._lock = threading.Lock()
        self._is_taken = threading.Event()  # whether a loop has taken the last outputs
        self._is_taken.set()
        self._reader = threading.Thread(target=self._read, name="quire-outputs", daemon=True)
        self.dead_error: EngineDeadError | None = None

    def start(self) -> None:
        self._reader.start()

    @property
    def num_requests(self) -> int:
        return len(self._collectors)

    def add(self, request: ProcessedRequest, collector: OutputCollector) -> None:
        """Start a request whose outputs go to the collector."""
        request_id = collector.request_id
        with self._lock:
            if self.dead_error is not None:
                raise EngineDeadError(str(self.dead_error)) from self.dead_error
            self._front.outputs.add(request)
            self._collectors[request_id] = collector
            try:
                self._client.send(AddRequest(request.engine))
            except BaseException:
                self._drop([request_id])
                raise

    def abort(self, request_ids: Iterable[str], *, keeps_tokens: bool = False) -> None:
        """Abort requests; their consumers get a last output. Unknown ids are ignored.

        At once; but with ``keeps_tokens`` requests whose tokens the core holds back end when it has
        sent them.
        """
        with self._lock:
            known = [one for one in request_ids if one in self._collectors]
            outputs = self._front.outputs
            untold = [one for one in known if keeps_tokens and not outputs.is_watched(one)]
            _deliver(self._abort([one for one in known if one not in untold]))
            if untold:
                self._send(Abort(untold, keeps_tokens=True))

    def leave(self, collector: OutputCollector) -> None:
        """A consumer has gone: end its request, but no later one with the same id."""
        with self._lock:
            if self._collectors.get(collector.request_id) is collector:
                self._abort([collector.request_id])

    def close(self) -> None:
        """End the core; requests in flight fail."""
        self._client.close()
        if self._reader.ident is not None and self._reader is not threading.current_thread():
            self._reader.join()

    def _read(self) -> None:
        try:
            while True:
                self._is_taken.wait(_LONGEST_WAIT_S)
                self._process(self._client.receive())
        except EngineDeadError as error:
            self._die(error)
        except Exception as error:  # a silent end of this thread would hang every consumer
            dead = EngineDeadError(
                f"The engine's front end failed.\n{type(error).__name__}: {error}"
            )
            dead.__cause__ = error
            try:
                self._die(dead)
            finally:
                self._client.close()

    def _process(self, deltas: list[CompletionDelta]) -> None:
        with self._lock:
            step = self._front.outputs.process(deltas)
            for request_id, index in step.to_abort:
                self._client.send(Finish(request_id, index))
            parcels: list[_Parcel] = []
            for output in step.outputs:
                parcels.append((self._collectors[output.request_id], output))
                if output.finished:
                    del self._collectors[output.request_id]
            if parcels:
                self._is_taken.clear()
                lost = _deliver(parcels, self._is_taken.set)
                self._abort([one for one in lost if one in self._collectors])
                if len(lost) == len(parcels):
                    self._is_taken.set()

    def _abort(self, request_ids: list[str]) -> list[_Parcel]:
        parcels = self._drop(request_ids)
        if request_ids:
            self._send(Abort(request_ids))
        return parcels

    def _send(self, abort: Abort) -> None:
        with contextlib.suppress(EngineDeadError):  # then nothing runs
            self._client.send(abort)

    def _drop(self, request_ids: list[str]) -> list[_Parcel]:
        return [
            (self._collectors.pop(request_id), output)
            for request_id in request_ids
            for output in self._front.outputs.abort(request_id)
        ]

    def _die(self, error: EngineDeadError) -> None:
        with self._lock:
            self.dead_error = error
            orphans, self._collectors = list(self._collectors.values()), {}
            try:
                self._front.outputs.lose_all()
            finally:  # whatever goes wrong there, nobody may be left waiting
                _fail_all(orphans, error)


def _fail_all(collectors: list[OutputCollector], error: EngineDeadError) -> None:
    for collector in collectors:
        own = EngineDeadError(str(error))  # consumers must not share a traceback
        own.__cause__ = error
        with contextlib.suppress(RuntimeError):  # its loop is closed
            collector.loop.call_soon_threadsafe(collector.fail, own)


def _deliver(parcels: list[_Parcel], taken: Callable[[], None] = lambda: None) -> list[str]:
    """Wake each event loop once; each says when it has ``taken`` its own. Returns the requests
    whose loop is closed: nobody waits for them any more."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Parcel]] = defaultdict(list)
    for parcel in parcels:
        by_loop[parcel[0].loop].append(parcel)
    lost = []
    for loop, own in by_loop.items():
        try:
            loop.call_soon_threadsafe(_put_all, own, taken)
        except RuntimeError:
            lost += [collector.request_id for collector, _ in own]
    return lost


def _put_all(parcels: list[_Parcel], taken: Callable[[], None]) -> None:
    for collector, output in parcels:
        collector.put(output)
    taken()
