"""Metrics for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from quire.metrics import multiprocess
from quire.metrics.exposition import CONTENT_TYPE
from quire.server.errors import unavailable
from quire.server.state import state_of

router = APIRouter(tags=["health"])


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Metrics in Prometheus' text format; while the model loads, only those of the server."""
    if multiprocess.folder_is_gone():
        raise unavailable(
            "The folder in which the HTTP processes count has been removed; restart the server."
        )
    text = await state_of(request).watch.exposition()
    return Response(text, headers={"Content-Type": CONTENT_TYPE})
