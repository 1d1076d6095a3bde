"""Health, readiness, start-up, load and version, for load balancers, orchestrators and people."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request
from starlette.responses import Response

import quire
from quire.server.error_responses import json_response
from quire.server.errors import unavailable
from quire.server.state import Phase, ServerState, state_of

# The core is polled every `watch.LOG_INTERVAL_S` seconds, so a hang shows after 30 to 40 s. It
# answers between two steps; a long step must not look like a hang.
MAX_SILENCE_S = 30.0

router = APIRouter(tags=["health"])


@router.get("/health")
async def health(request: Request) -> Response:
    """200 when the engine answers; 503 while it loads, after it has died, and while it has said
    nothing for 30 s."""
    state = state_of(request)
    is_up = state.is_ready or state.phase is Phase.DRAINING
    if not is_up or state.has_lost_engine:
        raise _not(state, "healthy")
    _must_answer(state, "healthy")
    return Response(status_code=200)


@router.get("/livez")
async def alive(request: Request) -> Response:
    """200 as long as restarting the process would not help: also while the model loads."""
    state = state_of(request)
    if state.phase is Phase.DEAD:
        raise _not(state, "alive")
    return Response(status_code=200)


@router.get("/readyz")
async def ready(request: Request) -> Response:
    """200 when new requests are taken, by every HTTP process; 503 while loading and draining, and
    while the engine has said nothing for 30 s."""
    state = state_of(request)
    if not state.is_ready:
        raise _not(state, "ready")
    _must_answer(state, "ready")
    return Response(status_code=200)


@router.get("/startupz")
async def startup(request: Request) -> Response:
    """The progress of the start-up, with the seconds of each finished phase; 503 until its end."""
    state = state_of(request)
    started = state.phase is not Phase.LOADING
    watch = state.start
    seconds = state.phase_seconds if started or watch is None else watch.phase_seconds()
    content = {
        "state": state.phase.value,
        "detail": state.detail,
        "phase": None if started or watch is None else watch.phase,
        "elapsed_seconds": round(state.ready_seconds or time.time() - state.started, 3),
        "phase_seconds": {name: round(value, 3) for name, value in seconds.items()},
    }
    headers = {} if started else {"Retry-After": "1"}
    return json_response(content, 200 if started else 503, headers)


@router.get("/ping")
@router.post("/ping")
async def ping(request: Request) -> Response:
    """The same as ``/health``, under the name that SageMaker calls."""
    return await health(request)


@router.get("/version")
async def version() -> Response:
    """The version of Quire."""
    return json_response({"version": quire.__version__})


@router.get("/load")
async def load(request: Request) -> Response:
    """The number of requests in flight."""
    return json_response({"server_load": state_of(request).running.num_everywhere})


def _not(state: ServerState, what: str) -> Exception:
    if state.phase is Phase.READY and not state.has_lost_engine:
        return unavailable(f"Not {what}: another HTTP process of this server is loading.")
    return unavailable(f"Not {what}: the server is {state.standing}.")


def _must_answer(state: ServerState, what: str) -> None:
    silence = state.watch.stats.silence_s
    if silence > MAX_SILENCE_S:
        raise unavailable(
            f"Not {what}: the engine core has not answered for {silence:.0f} s; it may be in a "
            "very long step, stopped or stuck."
        )
