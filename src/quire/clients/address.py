"""Where a server is, and what it says when it fails. Knows nothing about sending."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from quire import env
from quire.errors import QuireError

DEFAULT_URL = "http://localhost:8000"
GET_TIMEOUT_S = 30.0  # a server has at hand what it is asked for by GET
_API_ROOT = "/v1"
_MAX_MESSAGE_CHARS = 500


class ServerError(QuireError, ValueError):
    """A server that cannot be reached (``status`` is None), or that refused a request."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class CertificateError(ServerError):
    """A server whose certificate is not trusted, which waiting does not cure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """One server; paths of its API follow ``prefix`` and begin with /v1."""

    is_tls: bool
    host: str
    port: int
    prefix: str  # of a proxy; without a slash at its end

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse ``http://host:port``, with or without /v1 at its end."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not the URL of a server; give one such as {DEFAULT_URL}")
        try:
            port = parts.port
        except ValueError as error:
            raise ValueError(f"{url!r}: {error}") from None
        is_tls = parts.scheme == "https"
        return cls(
            is_tls=is_tls,
            host=parts.hostname,
            port=port or (443 if is_tls else 80),
            prefix=parts.path.rstrip("/").removesuffix(_API_ROOT).rstrip("/"),
        )

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"

    def url(self, path: str) -> str:
        return f"{'https' if self.is_tls else 'http'}://{self.authority}{self.prefix}{path}"

    def __str__(self) -> str:
        return self.url("")


def api_key(given: str | None) -> str | None:
    """The key to send: the given one, else ``QUIRE_API_KEY`` or ``OPENAI_API_KEY``."""
    return given or env.API_KEY.get() or os.environ.get("OPENAI_API_KEY") or None


def key_headers(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def refusal(status: int, body: bytes) -> ServerError:
    """The error for an answer with an error status."""
    return ServerError(f"the server answered {status}: {_message(body)}", status)


def _message(body: bytes) -> str:
    """What an error body says, in the forms of OpenAI, Anthropic and others."""
    try:
        content: Any = json.loads(body)
    except ValueError:
        text = body.decode(errors="replace").strip()
        return text[:_MAX_MESSAGE_CHARS] or "without a reason"
    error = content.get("error", content) if isinstance(content, dict) else content
    said = error.get("message") if isinstance(error, dict) else None
    return str(said or error)[:_MAX_MESSAGE_CHARS]
