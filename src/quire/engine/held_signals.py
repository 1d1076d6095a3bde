"""Holds the program's signal handlers back while the engine is in the middle of something.

A handler that raises, such as that of a time limit, would leave a step half done. Knows nothing of
what is protected.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` makes enums: ten times slower
import _thread  # a handler may interrupt `threading` itself, whose locks it must not wait for
import contextlib
import signal
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType

LONGEST_HOLD_S = 300.0  # a step on a CPU may take a minute

_NUMBERS = tuple(
    int(number)
    for number in (
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGXCPU,
        signal.SIGALRM,
        signal.SIGVTALRM,
        signal.SIGPROF,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGHUP,
    )
)
_CTRL_C = int(signal.SIGINT)

_Handler = Callable[[int, FrameType | None], object]


class HeldSignals:
    """Python's signal handlers wait inside the block and are called at its end.

    Each is called once, with its own arguments, in the order in which the signals came; when
    several raise, the last error is raised and the others are its context. Handlers that are set
    inside the block stay, and are called at once. Blocks may be nested: the outermost one holds
    and calls the handlers. In other threads, where Python calls no handlers, nothing is done.

    The block may never end, as a step that loops does. So the handlers are called inside it after
    `LONGEST_HOLD_S` seconds, or at a second Ctrl-C, whatever that leaves half done. What they raise
    passes every ``except Exception`` in the block. Functions of the user that a step calls, such as
    logits processors, are part of the block. (`worker/step_timeout.py` ends the wait for a
    device that hangs; no handler can interrupt C code that does.)
    """

    def __init__(self) -> None:
        self._handlers: dict[int, _Handler] = {}  # held back, by the numbers of their signals
        self._pending: dict[int, FrameType | None] = {}  # signals that came, in that order
        self._end: SimpleQueue[None] | None = None  # wakes the thread that waits for the end
        self._is_overdue = False
        self._is_over = False

    def __enter__(self) -> HeldSignals:
        if threading.current_thread() is not threading.main_thread():
            return self
        try:
            for number in _NUMBERS:
                handler = _signal.getsignal(number)
                is_held = isinstance(handler, HeldSignals) and not handler._is_over
                if callable(handler) and not is_held:
                    self._handlers[number] = handler
                    _signal.signal(number, self)
        except BaseException:  # of a handler that is not held yet
            self._let_go()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._let_go()
            if isinstance(error, SignalHandlerError):
                raise error
        except SignalHandlerError as carrier:
            if carrier.block is not self:
                raise
            raise carrier.error from None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The handler of all held signals."""
        if self._is_over:  # code in the block has kept it, and has set it again later
            self._handlers[number](number, frame)
            return
        if number in self._pending and (self._is_overdue or number == _CTRL_C):
            try:
                self._let_go()
                if not self._is_overdue:
                    self._handlers[number](number, frame)  # the second press is a signal of its own
            except Exception as error:
                raise SignalHandlerError(error, self) from error
            return
        self._pending.setdefault(number, frame)
        if self._end is None:
            self._end = SimpleQueue()  # the kind that a handler may use
            with contextlib.suppress(RuntimeError):  # as the program ends
                _thread.start_new_thread(self._insist, (self._end, threading.get_ident()))

    def _let_go(self) -> None:
        """Set the handlers again, and call those whose signals came. A second call goes on where
        the first was interrupted."""
        if self._end is not None:
            self._end.put(None)
        try:
            for number, handler in self._handlers.items():
                if _signal.getsignal(number) is self:
                    _signal.signal(number, handler)
            self._is_over = True
            if self._pending:
                number = next(iter(self._pending))
                frame = self._pending.pop(number)
                self._handlers[number](number, frame)
        except BaseException:
            self._let_go()
            raise
        if self._pending:
            self._let_go()

    def _insist(self, end: SimpleQueue[None], thread: int) -> None:
        """Send a signal again if the block does not end in time."""
        try:
            end.get(timeout=LONGEST_HOLD_S)
        except Empty:
            self._is_overdue = True
            for number in list(self._pending)[:1]:
                signal.pthread_kill(thread, number)


class SignalHandlerError(BaseException):
    """Carries an error of a handler out of its block."""

    def __init__(self, error: Exception, block: HeldSignals) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.error = error
        self.block = block
