"""The core process of a server: on shutdown a hung core is killed instead of waited for."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading

from quire.engine.messages import STATS
from quire.engine.process import ProcessClient
from quire.errors import EngineDeadError

logger = logging.getLogger(__name__)

PATIENCE_S = 3.0  # a core answers between two steps, whose results nobody wants any more


class ServedCore(ProcessClient):
    """A `ProcessClient` whose `close` kills a core that no longer answers."""

    def close(self) -> None:
        self._kill_if_silent()
        super().close()

    def _kill_if_silent(self) -> None:
        answered = threading.Event()

        def ask() -> None:
            with contextlib.suppress(EngineDeadError):
                self.ask(STATS)
            answered.set()

        threading.Thread(target=ask, name="quire-last-question", daemon=True).start()
        if not answered.wait(PATIENCE_S):
            logger.warning(
                "the engine core, process %d, has not answered for %g s; it is killed",
                self.pid,
                PATIENCE_S,
            )
            os.kill(self.pid, signal.SIGKILL)
