"""Who answers the requests of a batch: the server's application in this process, or a server.

In this process there is no socket: the application is called as a web server would call it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from quire.batch_files.output import KEY_REFUSED
from quire.clients.address import Address, ServerError, api_key, key_headers, refusal
from quire.clients.http import HTTPClient, Reply, tell_of_proxy
from quire.errors import EngineDeadError
from quire.near_names import did_you_mean

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

    from quire.server.lifecycle import OpenEngine
    from quire.server.state import ServerState

_POLL_S = 0.02
_OK, _NOT_FOUND = 200, 404
_MOST_SHOWN = 5  # names in an error
REQUEST_ID = "x-request-id"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The answer to one request."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes


class Target(Protocol):
    """What answers requests. `ask` raises `EngineDeadError` when nothing more will be answered, and
    `ServerError` when the server is away at the moment, or is not the one that is meant."""

    async def ask(self, path: str, body: Mapping[str, Any]) -> Answer: ...

    async def default_model(self) -> str: ...


class RemoteTarget:
    """A server with OpenAI's API."""

    def __init__(self, client: HTTPClient, named: str | None = None) -> None:
        """``named`` is the model that the command names."""
        self._client = client
        self._named = named
        self._has_answered = False
        self._list: Reply | None = None  # its list of models, if it was asked for
        self._asks_for_list = asyncio.Lock()

    async def ask(self, path: str, body: Mapping[str, Any]) -> Answer:
        reply = await self._client.post(path, json.dumps(body).encode())
        self._has_answered |= reply.status == _OK
        if reply.status == _NOT_FOUND and not self._has_answered:
            await self._check_what_is_there(path, body.get("model"))
        return Answer(status=reply.status, headers=reply.headers, body=reply.body)

    async def default_model(self) -> str:
        reply = await self._client.get("/v1/models")
        if reply.status in KEY_REFUSED:
            raise refusal(reply.status, reply.body)
        names = _names(reply)
        if not names:
            raise ServerError(
                f"the server does not list its models (status {reply.status}); name one with "
                "--model",
                reply.status,
            )
        return names[0]

    async def _check_what_is_there(self, path: str, model: Any) -> None:
        """`ServerError` if every line would get a 404, for a wrong URL or a wrong ``--model``."""
        async with self._asks_for_list:
            self._list = self._list or await self._client.get("/v1/models")
        if self._list.status == _NOT_FOUND:
            raise ServerError(
                f"the server has neither {path} nor /v1/models (status 404); check --url",
                _NOT_FOUND,
            )
        names = _names(self._list)
        if names and model == self._named and model not in names:
            hint = did_you_mean(model, names) or f"; it lists {', '.join(names[:_MOST_SHOWN])}"
            raise ServerError(f"the server has no model {model!r}{hint}", _NOT_FOUND)


def _names(reply: Reply) -> list[str]:
    """The names in a list of models; none if the reply is not such a list."""
    try:
        return [str(one["id"]) for one in json.loads(reply.body)["data"]]
    except (ValueError, LookupError, TypeError):
        return []


class AppTarget:
    """The server's application, called in this process."""

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        from quire.server.keys import all_keys

        self._app = app
        self._engine = state.require_engine()
        self._model = state.require_models().names[0]
        headers = {
            "content-type": "application/json",
            **key_headers(next(iter(all_keys(state.args)), None)),
        }
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def ask(self, path: str, body: Mapping[str, Any]) -> Answer:
        data = json.dumps(body).encode()
        length = (b"content-length", str(len(data)).encode())
        call = _Call(data)
        raw_path, _, query = path.partition("?")
        scope = {
            **_SCOPE,
            "path": unquote(raw_path),
            "raw_path": raw_path.encode(),
            "query_string": query.encode(),
            "headers": [*self._headers, length],
        }
        await self._app(scope, call.receive, call.send)
        if self._engine.dead_error is not None:
            raise self._engine.dead_error  # whatever this answer says
        return call.answer()

    async def default_model(self) -> str:
        return self._model


_SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "root_path": "",
    "client": ("127.0.0.1", 0),
    "server": ("batch", 80),
}


class _Call:
    """One request as an application sees it."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._ended = asyncio.Event()
        self._status = 0
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._ended.wait()  # the client stays until it has the whole answer
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in message.get("headers", ())
            }
        else:
            self._pieces.append(message.get("body", b""))
            if not message.get("more_body", False):
                self._ended.set()

    def answer(self) -> Answer:
        return Answer(status=self._status, headers=self._headers, body=b"".join(self._pieces))


@contextlib.asynccontextmanager
async def in_process(state: ServerState, open_engine: OpenEngine) -> AsyncIterator[AppTarget]:
    """The application once its engine has loaded; raises the reason if it has not."""
    from quire.server.app import build_app
    from quire.server.lifecycle import Lifecycle
    from quire.server.state import Phase

    lifecycle = Lifecycle(state, open_engine)
    life = asyncio.create_task(lifecycle.run())
    try:
        while state.phase is Phase.LOADING and not life.done():
            await asyncio.sleep(_POLL_S)
        if state.phase is not Phase.READY:
            raise lifecycle.failure or EngineDeadError(state.detail)
        yield AppTarget(build_app(state), state)
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
        lifecycle.close()


@contextlib.asynccontextmanager
async def at_server(url: str, key: str | None, model: str | None) -> AsyncIterator[RemoteTarget]:
    address = Address.parse(url)
    tell_of_proxy(address)
    client = HTTPClient(address, key_headers(api_key(key)))
    try:
        yield RemoteTarget(client, model)
    finally:
        await client.close()
