"""Which attention backend a model gets: the one asked for, if it can solve every problem."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from quire.attention.backend import AttentionBackend, AttentionProblem

# Name, as `--attention-backend` takes it -> module:class. Imported when chosen.
BACKENDS: dict[str, str] = {
    "torch": "quire.attention.torch_backend:TorchAttention",
    "triton": "quire.attention.triton_backend:TritonAttention",
}


def select_backend(name: str, problems: Iterable[AttentionProblem]) -> type[AttentionBackend]:
    """The backend ``name``; ValueError says why it cannot serve one of ``problems``."""
    if name not in BACKENDS:
        raise ValueError(
            f"attention backend {name!r} is not known; choose one of: {', '.join(BACKENDS)}"
        )
    module, _, attribute = BACKENDS[name].partition(":")
    backend: type[AttentionBackend] = getattr(import_module(module), attribute)
    reasons = list(dict.fromkeys(r for problem in problems for r in backend.why_not(problem)))
    if reasons:
        raise ValueError(
            f"attention backend {name!r} cannot serve this model: {'; '.join(reasons)}; "
            f"choose another of: {', '.join(BACKENDS)}"
        )
    return backend
