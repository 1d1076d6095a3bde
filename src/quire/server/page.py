"""The page at ``/``: a chat, and a live picture of the engine; its files are in ``page/``.

Owns what the picture is drawn from, `/page-data`; the chat is an ordinary client of the API.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from quire.server.error_responses import json_response
from quire.server.errors import not_found
from quire.server.state import ServerState, state_of

router = APIRouter(include_in_schema=False)

MAX_CELLS = 4096
_FOLDER = Path(__file__).with_name("page")
_KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_STATS_AGE_S = 0.2  # two tabs ask the engine no more often than one
_STALE_S = 10.0  # an engine answers between two steps, and a long step takes seconds
_LARGE_MAP_AGE_S = 1.0  # a map of very many blocks costs the core time
_LARGE_MAP = 16 * MAX_CELLS
# Block states as `AsyncLLM.block_map` numbers them; then ordered from the idlest to the busiest,
# since a cell of several blocks shows the busiest.
_FREE, _IN_USE, _SHARED, _CACHED = range(4)
_BY_BUSYNESS = np.array([_FREE, _CACHED, _IN_USE, _SHARED], dtype=np.uint8)
_BUSYNESS = np.argsort(_BY_BUSYNESS).astype(np.uint8)


@router.get("/")
async def page() -> Response:
    """A chat, and a live picture of the engine."""
    return _file("index.html")


@router.get("/page/{name}")
async def page_file(name: str) -> Response:
    """A style sheet or a script."""
    return _file(name)


@router.get("/page-data")
async def page_data(request: Request) -> Response:
    """The server's phase, and the engine's statistics and blocks once there is one."""
    state = state_of(request)
    content: dict[str, Any] = {
        "state": state.phase.value,
        "detail": state.detail,
        "elapsed_s": round(time.time() - state.started, 1),
        "model": None if state.models is None else state.models.names[0],
        "stats": None,
        "blocks": None,
    }
    if state.engine is not None:
        content |= await _engine(state)
    return json_response(content, headers={"Cache-Control": "no-store"})


async def _engine(state: ServerState) -> dict[str, Any]:
    """Statistics and blocks of the engine; empty if its last answer is older than `_STALE_S`."""
    watch = state.watch
    stats = await watch.stats.get(_STATS_AGE_S)
    if time.monotonic() - watch.stats.time > _STALE_S:
        return {}
    age = _STATS_AGE_S if stats.num_blocks < _LARGE_MAP else _LARGE_MAP_AGE_S
    blocks = await watch.blocks.get(age)
    return {
        "time_s": watch.stats.time,
        "stats": asdict(stats),
        "ttft_s": watch.latencies.median_ttft,
        "blocks": block_picture(blocks[1:]),  # the first is the null block
    }


def block_picture(blocks: bytes) -> dict[str, Any]:
    """The blocks as at most `MAX_CELLS` cells, one digit each, and exact counts by state."""
    per_cell = max(1, -(-len(blocks) // MAX_CELLS))
    ranks = _BUSYNESS[np.frombuffer(blocks, dtype=np.uint8)]
    padded = np.zeros(-(-len(blocks) // per_cell) * per_cell, dtype=np.uint8)
    padded[: len(ranks)] = ranks
    cells = _BY_BUSYNESS[padded.reshape(-1, per_cell).max(axis=1)]
    return {
        "cells": (cells + ord("0")).tobytes().decode("ascii"),
        "per_cell": per_cell,
        "counts": [blocks.count(kind) for kind in range(len(_BY_BUSYNESS))],
    }


def _file(name: str) -> Response:
    found = next((path for path in _files() if path.name == name), None)
    if found is None:
        raise not_found(f"The page has no file {name[:40]!r}.")
    media_type = f"{_KINDS[found.suffix]}; charset=utf-8"
    return Response(found.read_bytes(), media_type=media_type, headers=_HEADERS)


def _files() -> Iterator[Path]:
    return (path for path in _FOLDER.iterdir() if path.suffix in _KINDS)
