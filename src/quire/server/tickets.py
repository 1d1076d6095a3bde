"""Tickets: a request's place among those in flight, taken before any work is spent on it.

Owns the limit of the queue, and the ids that requests have inside. Knows nothing about prompts.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

from quire.server.errors import too_many
from quire.server.state import RequestTable, RunningRequest, ServerState


@dataclass(slots=True)
class Ticket:
    """Must be given back; what generates has it until its end."""

    running: RunningRequest
    _table: RequestTable
    is_cancelled: bool = False  # before there was anything to cancel

    @classmethod
    def take(cls, state: ServerState, endpoint: str, model: str, request_id: str) -> Ticket:
        """429 if there are too many requests; 503 if there is no engine."""
        refuse_if_full(state)
        running = RunningRequest(
            request_id=_own_id(state.running, request_id),
            client_request_id=request_id,
            endpoint=endpoint,
            model=model,
            arrival_time=time.time(),
            cancel=_nothing,
            drop=_nothing,
        )
        ticket = cls(running, state.running)
        running.cancel = running.drop = ticket.cancel
        state.running.add(running)
        return ticket

    @property
    def request_id(self) -> str:
        """Of this request only, whatever its client calls it."""
        return self.running.request_id

    def cancel(self) -> None:
        self.is_cancelled = True

    def give_back(self) -> None:
        """A second time does nothing."""
        if self._table.get(self.request_id) is self.running:
            self._table.remove(self.request_id)
            self.running.cancel = self.running.drop = _nothing  # and hold nobody's prompts


def _nothing() -> None:
    pass


def refuse_if_full(state: ServerState) -> None:
    """429 if there are too many requests; 503 if there is no engine."""
    state.require_engine()
    if (in_flight := state.running.num_everywhere) >= state.args.max_queued_requests:
        raise too_many(
            f"The server has {in_flight} requests in flight already, and takes "
            f"{state.args.max_queued_requests} (--max-queued-requests); try again later."
        )


def _own_id(table: RequestTable, request_id: str) -> str:
    """A client may send an id twice, such as a proxy that tries again."""
    if table.get(request_id) is None:
        return request_id
    return f"{request_id}-{uuid.uuid4().hex[:8]}"
