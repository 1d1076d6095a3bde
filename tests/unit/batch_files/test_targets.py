"""What an application sees of a batch's request, which is what a server would make of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from quire.batch_files.targets import AppTarget
from quire.server.args import ServerArgs


async def test_the_query_and_escapes_of_a_url_are_what_a_server_makes_of_them() -> None:
    scopes: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"{}"})

    state = SimpleNamespace(
        require_engine=lambda: SimpleNamespace(dead_error=None),
        require_models=lambda: SimpleNamespace(names=["m"]),
        args=ServerArgs(),
    )
    target = AppTarget(app, cast(Any, state))
    await target.ask("/v1/%63ompletions?x=%31&y=?", {})
    (scope,) = scopes
    assert (scope["path"], scope["query_string"]) == ("/v1/completions", b"x=%31&y=?")
    assert scope["raw_path"] == b"/v1/%63ompletions"
