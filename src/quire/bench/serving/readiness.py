"""Waits for a server before a measurement, and says so. Knows nothing about what it is asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from quire import log
from quire.clients.address import Address, CertificateError, ServerError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CHECK_INTERVAL_S = 0.5
_SILENCE_S = 5.0  # without any answer, until the user is told
_PASSING = (None, 429, 503)  # statuses of a server that is away, full or loading


async def until_answered(ask: Callable[[], Awaitable[T]], address: Address, timeout_s: float) -> T:
    """What ``ask`` returns, tried again while the server is away, full or loading. `ServerError`
    after ``timeout_s``, or at once for what waiting does not cure; 0: one try, without a limit of
    its own."""
    waiting = _Waiting(address, timeout_s)
    try:
        return await asyncio.wait_for(_ask_until_answered(ask, waiting), timeout_s or None)
    except asyncio.TimeoutError:
        raise ServerError(
            f"{waiting.error}; gave up after {timeout_s:g} s (--ready-check-timeout-sec)",
            waiting.error.status,
        ) from None


async def _ask_until_answered(ask: Callable[[], Awaitable[T]], waiting: _Waiting) -> T:
    while True:
        try:
            with waiting:
                return await ask()
        except CertificateError as error:
            raise ServerError(f"{error}, or add --insecure") from error
        except ServerError as error:
            if waiting.has_one_try or error.status not in _PASSING:
                raise
            waiting.tell(error)
        await asyncio.sleep(_CHECK_INTERVAL_S)


class _Waiting:
    """Why there is no answer yet; the user is told once for each status. As a context, one try."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        self.error = self._silence = ServerError(f"{address} does not answer")
        self.has_one_try = timeout_s == 0
        limit = "" if self.has_one_try else f", up to {timeout_s:g} s"
        self._what = f"{address}{limit}"
        self._told: set[int | None] = set()

    def tell(self, error: ServerError) -> None:
        self.error = error
        if error.status not in self._told:
            self._told.add(error.status)
            log.setup()
            logger.warning("waiting for %s: %s", self._what, error)

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_SILENCE_S, self.tell, self._silence)

    def __exit__(self, *raised: object) -> None:
        self._timer.cancel()
