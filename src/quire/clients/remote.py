"""A blocking client for one user at a terminal: sends requests, and yields events as they come."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quire.clients.address import GET_TIMEOUT_S, Address, ServerError, key_headers, refusal
from quire.clients.sse import DONE, EventSplitter
from quire.shown import shown

_OK = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteModel:
    """A model of the server."""

    name: str
    max_model_len: int | None = None  # if the server reports it
    root: str | None = None  # hub id, or folder on the server, if it reports it


class RemoteServer:
    """Sends one request after the other with the standard library, which knows proxies."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.address = Address.parse(url)
        self._headers = {"Content-Type": "application/json", **key_headers(key)}

    def model(self, name: str | None = None) -> RemoteModel:
        """The model ``name``, which the server need not list, or the first that it lists."""
        try:
            with self._send("/v1/models", None, GET_TIMEOUT_S) as answer:
                models = listed_models(b"".join(_lines(answer)))
        except ServerError as error:
            if name is None or _is_fatal(error):
                raise unlisted(error) from None
            return RemoteModel(name=name)
        if name is None:
            return first_of(models, self.address)
        return next((one for one in models if one.name == name), RemoteModel(name=name))

    def stream(self, path: str, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """The events of an answer as they come; leaving early closes the connection."""
        splitter = EventSplitter()
        whole = {**body, "stream": True, "stream_options": {"include_usage": True}}
        with self._send(path, json.dumps(whole).encode()) as answer:
            for line in _lines(answer):
                for data in splitter.feed(line):
                    if data == DONE:
                        return
                    yield _event(data)
        raise ServerError("the server ended the connection in the middle of its answer")

    def _send(
        self, path: str, body: bytes | None, timeout_s: float | None = None
    ) -> http.client.HTTPResponse:
        request = urllib.request.Request(self.address.url(path), body, self._headers)
        try:
            answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                raise refusal(error.code, error.read()) from None
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(f"{self.address} cannot be reached: {_reason(error)}") from error
        return answer


def listed_models(body: bytes) -> list[RemoteModel]:
    """The models in an answer to GET /v1/models; `ServerError` if it is no such list."""
    try:
        return [
            RemoteModel(
                name=card["id"], max_model_len=card.get("max_model_len"), root=card.get("root")
            )
            for card in json.loads(body)["data"]
        ]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ServerError("the server did not list its models", _OK) from error


def first_of(models: Sequence[RemoteModel], address: Address) -> RemoteModel:
    if not models:
        raise ServerError(f"{address} serves no model")
    return models[0]


def unlisted(error: ServerError) -> ServerError:
    """``error``, with what to do about a server that only does not list its models."""
    if _is_fatal(error):
        return error
    return ServerError(f"{error}; name a model with --model", error.status)


def _is_fatal(error: ServerError) -> bool:
    """Whether asking such a server for anything else would fail as well."""
    return error.status in (None, 401, 403, 503)


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(cause.strerror if isinstance(cause, OSError) and cause.strerror else cause)


def _lines(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        yield from answer
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(
            f"the server ended the connection in the middle of its answer: {error}"
        ) from error


def _event(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        raise ServerError(f"the server sent an event that is not JSON: {shown(data)}") from None
    if not isinstance(event, dict):
        raise ServerError(f"the server sent an event that is not a JSON object: {shown(data)}")
    if event.get("error"):
        raise refusal(500, data)
    return event
