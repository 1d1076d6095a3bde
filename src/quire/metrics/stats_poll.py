"""Polls the engine's statistics for any number of readers, and never waits for long.

However many pages and scrapes there are, the core gets one question at a time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from quire.errors import EngineDeadError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PATIENCE_S = 2.0  # a core answers between two steps; a hung core must not block readers


class Poll(Generic[T]):
    """The newest answer to one question; `get` may be called from many tasks of one loop."""

    def __init__(self, ask: Callable[[], Awaitable[T]], first: T) -> None:
        self._ask = ask
        self._answer = first
        self._asked: asyncio.Task[None] | None = None
        self._asked_time = 0.0
        self._answered_time = float("-inf")  # when the question of this answer was asked
        self._may_complain = True  # log one failure, until there is an answer again
        self.time = float("-inf")  # of the answer, in time.monotonic() seconds

    async def get(self, max_age_s: float) -> T:
        """An answer at most so old, or an older one if the engine is too slow, or dead."""
        if time.monotonic() - self.time > max_age_s:
            await self._ends_question()
        return self._answer

    async def get_new(self) -> T | None:
        """The answer to a question that is asked from now on; None if the engine is too slow for
        that, or dead."""
        begun = time.monotonic()
        for _ in range(2):  # the first may be a question that was open before
            if not await self._ends_question():
                break
            if self._answered_time >= begun:
                return self._answer
        return None

    @property
    def has_answer(self) -> bool:
        return self.time > float("-inf")

    @property
    def silence_s(self) -> float:
        """For how long a question has had no answer; 0.0 when none is open."""
        if self._asked is None or self._asked.done():
            return 0.0
        return time.monotonic() - self._asked_time

    async def _ends_question(self) -> bool:
        """Ask, unless a question is open; False if it still is when patience ends."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.create_task(self._refresh())
            self._asked_time = time.monotonic()
        asked = self._asked
        await asyncio.wait([asked], timeout=_PATIENCE_S)
        return asked.done()

    async def _refresh(self) -> None:
        try:
            self._answer = await self._ask()
        except Exception as error:
            if self._may_complain and not isinstance(error, EngineDeadError):
                logger.exception("the engine's statistics are unavailable; older ones are shown")
            self._may_complain = False
        else:
            self.time, self._answered_time = time.monotonic(), self._asked_time
            self._may_complain = True
