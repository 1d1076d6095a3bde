"""Tickets: a request's place among those in flight, taken before any work is spent on it.

Owns the queue limit, and the server's own ids of requests. Knows nothing about prompts.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass

from quire.server.errors import too_many
from quire.server.state import RequestTable, RunningRequest, ServerState


@dataclass(slots=True)
class Ticket:
    """Must be given back; a generation holds it until it ends."""

    running: RunningRequest
    _table: RequestTable
    is_cancelled: bool = False  # before its generation existed

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
        """The server's unique id, whatever id the client gave."""
        return self.running.request_id

    def cancel(self) -> None:
        self.is_cancelled = True

    def give_back(self) -> None:
        """Free the place; a second call does nothing."""
        if self._table.get(self.request_id) is self.running:
            self._table.remove(self.request_id)
            self.running.cancel = self.running.drop = _nothing  # keep no prompts alive


def _nothing() -> None:
    pass


def refuse_if_full(state: ServerState) -> None:
    """429 if there are too many requests; 503 if there is no engine."""
    state.require_engine()
    if (in_flight := state.running.num_everywhere) >= state.args.max_queued_requests:
        raise too_many(
            f"The server already has {in_flight} requests in flight, and its limit is "
            f"{state.args.max_queued_requests} (--max-queued-requests); try again later.",
            "queue_full",
        )


def _own_id(table: RequestTable, request_id: str) -> str:
    """A unique id; a client may send the same id twice, such as a proxy that retries."""
    if table.get(request_id) is None:
        return request_id
    return f"{request_id}-{uuid.uuid4().hex[:8]}"
