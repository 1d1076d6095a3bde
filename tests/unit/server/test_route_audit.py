"""Every route, one by one: it asks for the key, honours the limits, refuses while it must, and is
described."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import Mount

from quire.engine.async_engine import AsyncLLM
from quire.server.app import ROUTERS, build_app
from quire.server.args import ServerArgs
from quire.server.guard import is_open
from quire.server.state import Phase, ServerState
from tests.fakes.server import in_process_client, ready_state
from tools.server_docs import PAGE, written

KEY = {"Authorization": "Bearer sesame"}
LIMIT = 4096
# Written out, so that a route which is open by mistake is seen.
OPEN = {"/", "/health", "/livez", "/readyz", "/startupz", "/ping", "/page/{name}"}
# They answer whatever the engine does: how it is, what is known of it, and what is always 404.
ANSWER_ALWAYS = re.compile(
    r"/(livez|startupz|version|load|metrics|server_info|page-data|v1/requests.*|page/.*|"
    r"v1/responses/\{response_id\}.*)?"
)
BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "Hello"},
    "/v1/responses": {"input": "Hello"},
    "/v1/responses/input_tokens": {"input": "Hello"},
    "/tokenize": {"prompt": "Hello"},
    "/v1/tokenize": {"prompt": "Hello"},
    "/detokenize": {"tokens": [5]},
    "/v1/detokenize": {"tokens": [5]},
    "/reset_prefix_cache": {},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "Hello"}]},
}
CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}

ROUTES = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
CALLS = sorted({(method, route.path) for route in ROUTES for method in route.methods})
WITH_BODY = [(method, path) for method, path in CALLS if method == "POST"]
NEEDING_AN_ENGINE = [call for call in CALLS if not ANSWER_ALWAYS.fullmatch(call[1])]


@pytest.fixture
def state(engine: AsyncLLM) -> ServerState:
    return ready_state(engine, api_key=("sesame",), max_request_body_size=LIMIT)


@pytest.fixture
async def client(state: ServerState) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process_client(state) as client:
        yield client


async def call(client: httpx.AsyncClient, method: str, path: str, **more: Any) -> httpx.Response:
    url = re.sub(r"\{[^}]*\}", "any", path)
    if method == "POST" and "content" not in more:
        more["json"] = BODIES.get(path, CHAT)
    return await client.request(method, url, **more)


def test_all_routes_are_audited() -> None:
    """The framework's own routes are the documentation; nothing else is added by the side."""
    app = build_app(ServerState(args=ServerArgs()))
    assert not any(isinstance(route, Mount) for route in app.routes)
    added = {route.path for route in _plain_routes(app.routes)}
    audited = {path for _, path in CALLS}
    assert added - audited == {"/docs", "/docs/oauth2-redirect", "/openapi.json"}


def _plain_routes(routes: list[Any]) -> list[Any]:
    """Routers that are included may stand in a list of their own."""
    return [
        one
        for route in routes
        for one in (_plain_routes(route.routes) if hasattr(route, "routes") else [route])
        if hasattr(one, "path")
    ]


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_the_key_is_asked_for(client: httpx.AsyncClient, method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"x-api-key": "wrong"}):
        answer = await call(client, method, path, headers=headers)
        assert (answer.status_code == 401) == (path not in OPEN)
        if path not in OPEN:
            assert answer.headers["www-authenticate"] == "Bearer"
            assert method == "HEAD" or answer.json()["error"]["message"]
    assert is_open(path) == (path in OPEN)


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/nothing", "/v1", "/pages/x"])
async def test_the_key_is_asked_for_beside_the_routes(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 401


@pytest.mark.parametrize("path", ["//v1/models", "/health/../v1/models", "/health/", "/HEALTH"])
async def test_no_spelling_of_a_path_goes_around_the_key(
    client: httpx.AsyncClient, path: str
) -> None:
    assert (await client.get(f"http://localhost{path}")).status_code == 401


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
async def test_large_bodies_are_refused(client: httpx.AsyncClient, method: str, path: str) -> None:
    kind = {**KEY, "Content-Type": "application/json"}
    large = json.dumps({**BODIES.get(path, CHAT), "user": "x" * LIMIT}).encode()
    answer = await call(client, method, path, headers=kind, content=large)
    assert answer.status_code == 413

    async def pieces() -> AsyncIterator[bytes]:
        yield large

    if _reads_body(path):  # who does not read need not count
        answer = await call(client, method, path, headers=kind, content=pieces())
        assert answer.status_code == 413


def _reads_body(path: str) -> bool:
    return any(route.path == path and route.body_field is not None for route in ROUTES)


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
async def test_other_kinds_of_bodies_are_refused(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    kind = {**KEY, "Content-Type": "text/plain"}  # which a page of another origin could send
    answer = await call(client, method, path, headers=kind, content=b'{"prompt": "Hello"}')
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize("phase", [Phase.LOADING, Phase.DRAINING, Phase.DEAD])
@pytest.mark.parametrize(("method", "path"), NEEDING_AN_ENGINE)
async def test_it_is_refused_while_there_is_no_engine(
    state: ServerState, method: str, path: str, phase: Phase
) -> None:
    engine = state.engine
    state.enter(phase, "as it is told")
    if phase is Phase.LOADING:
        state.engine = state.models = state.chat = None
    async with in_process_client(state) as client:
        answer = await call(client, method, path, headers=KEY)
    state.engine = engine
    if phase is Phase.DRAINING and path in ("/health", "/ping"):
        assert answer.status_code == 200  # what runs must not be cut off
    elif phase is not Phase.LOADING and path.startswith("/v1/models"):
        assert answer.status_code in (200, 404)  # what was served is still known
    else:
        assert answer.status_code == 503
        assert method == "HEAD" or int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_it_works_with_the_key(client: httpx.AsyncClient, method: str, path: str) -> None:
    """Nothing above was refused for another reason."""
    answer = await call(client, method, path, headers=KEY)
    assert answer.status_code == (404 if "{" in path else 200)


def test_every_route_is_in_the_documentation() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page) == page, "run: python tools/server_docs.py"
    for _, path in CALLS:
        assert f"| `{path}` |" in page


def test_every_route_of_the_api_is_described() -> None:
    described = build_app(ServerState(args=ServerArgs())).openapi()["paths"]
    for route in ROUTES:
        if route.include_in_schema:
            operation = described[route.path_format]
            assert {method.lower() for method in route.methods} <= operation.keys()
        else:
            assert route.path in ("/", "/page/{name}", "/page-data") or route.methods == {"HEAD"}
