"""What runs now, and how to end one of it; the prefix cache's reset."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from quire.server.error_responses import json_response
from quire.server.errors import HTTPError, not_found
from quire.server.state import RunningRequest, state_of

router = APIRouter(tags=["requests"])


@router.get("/v1/requests")
async def list_requests(request: Request) -> Response:
    """Requests in flight, oldest first."""
    running = sorted(state_of(request).running, key=lambda one: one.arrival_time)
    return json_response({"object": "list", "data": [_view(one) for one in running]})


@router.post("/v1/requests/{request_id}/cancel")
async def cancel(request_id: str, request: Request) -> Response:
    """End a request by its id (the answer's id or the ``X-Request-Id``)."""
    running = state_of(request).running
    found = running.get(request_id) or running.get(_without_prefix(request_id))
    if found is None:
        raise not_found(f"No request with the id {request_id!r} runs; it may have ended.")
    found.cancel()
    return json_response({"id": found.request_id, "object": "request", "status": "cancelled"})


@router.post("/reset_prefix_cache")
async def reset_prefix_cache(request: Request) -> Response:
    """Forget cached prefixes; 409 while requests use blocks."""
    if not await state_of(request).require_engine().reset_prefix_cache():
        raise HTTPError(
            409,
            "The prefix cache cannot be reset while requests run; try again when they have ended.",
            "ConflictError",
        )
    return json_response({"status": "ok"})


def _view(one: RunningRequest) -> dict[str, Any]:
    return {
        "id": one.request_id,
        "object": "request",
        "endpoint": one.endpoint,
        "model": one.model,
        "seconds": round(time.time() - one.arrival_time, 3),
        "prompt_tokens": one.num_prompt_tokens,
        "output_tokens": one.num_output_tokens,
    }


def _without_prefix(request_id: str) -> str:
    """``chatcmpl-abc`` -> ``abc``: answers carry a prefix before the request's own id."""
    return request_id.partition("-")[2] or request_id
