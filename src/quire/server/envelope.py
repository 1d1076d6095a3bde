"""The fields that all answers have in common: id, creation time, model and fingerprint."""

from __future__ import annotations

import functools
import hashlib
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import quire
from quire.server.errors import bad_request
from quire.server.protocol.common import INT64
from quire.server.usage import Usage

if TYPE_CHECKING:
    from starlette.requests import Request

    from quire.engine.async_engine import AsyncLLM


_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")  # bounded, as `int` is slow for very many digits


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """The head of a response and of all chunks of a stream."""

    id: str
    model: str  # as answers report it
    fingerprint: str
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, prefix: str, request_id: str, model: str, engine: AsyncLLM) -> Envelope:
        return cls(id=f"{prefix}-{request_id}", model=model, fingerprint=fingerprint_of(engine))

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def answer(self, kind: str, choices: list[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        """The body of a whole response."""
        return {
            **self.head(kind),
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": self.fingerprint,
            "usage": usage.as_dict(),
        }


def priority_of(request: Request, given: int | None) -> int:
    """The priority in a header, else that in the body (``given``), else 0."""
    for name in ("x-vllm-priority", "x-priority"):
        value = request.headers.get(name)
        if value is not None:
            return _integer(name, value.strip())
    return given or 0


def _integer(name: str, text: str) -> int:
    if _INTEGER.fullmatch(text) is None or not -INT64 <= int(text) < INT64:
        raise bad_request(
            f"the header {name} must be an integer of 64 bits, got {text[:40]!r}; a smaller one is "
            "served sooner."
        )
    return int(text)


def fingerprint_of(engine: AsyncLLM) -> str:
    """The ``system_fingerprint``: equal for the same version of Quire, model, revision, dtype and
    context length."""
    model = engine.config.model
    return _fingerprint(model.model, model.revision, model.dtype, engine.model_config.max_model_len)


@functools.lru_cache(maxsize=8)
def _fingerprint(*facts: object) -> str:
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()
    return f"quire-{quire.__version__}-{digest[:8]}"
