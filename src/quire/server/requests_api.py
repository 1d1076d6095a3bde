"""Endpoints that list and cancel running requests, and that reset the prefix cache."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from quire.server.error_responses import json_response
from quire.server.errors import conflict, not_found
from quire.server.state import state_of

router = APIRouter(tags=["requests"])


@router.get("/v1/requests")
async def list_requests(request: Request) -> Response:
    """Requests in flight, oldest first."""
    rows = await state_of(request).peers.rows()
    rows.sort(key=lambda row: -row["seconds"])
    return json_response({"object": "list", "data": rows})


@router.post("/v1/requests/{request_id:path}/cancel")
async def cancel(request_id: str, request: Request) -> Response:
    """End a request by its id (the answer's id or the ``X-Request-Id``)."""
    found = await state_of(request).peers.cancel(request_id)
    if found is None:
        raise not_found(f"No request with the id {request_id!r} is running; it may have ended.")
    return json_response({"id": found, "object": "request", "status": "cancelled"})


@router.post("/reset_prefix_cache")
async def reset_prefix_cache(request: Request) -> Response:
    """Forget cached prefixes; 409 while requests use blocks."""
    if not await state_of(request).require_engine().reset_prefix_cache():
        raise conflict(
            "The prefix cache cannot be reset while requests run; try again when they have ended."
        )
    return json_response({"status": "ok"})
