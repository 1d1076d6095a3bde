"""Which attention backend a model gets: the first named that can solve every problem of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from importlib import import_module

from quire.attention.backend import AttentionBackend, AttentionProblem
from quire.attention.start_up_check import disagreements

logger = logging.getLogger(__name__)

# Name, as `--attention-backend` takes it -> module:class. Imported when chosen.
BACKENDS: dict[str, str] = {
    "torch": "quire.attention.torch_backend:TorchAttention",
    "triton": "quire.attention.triton_backend:TritonAttention",
    "flashinfer": "quire.attention.flashinfer_backend:FlashInferAttention",
    "fa3": "quire.attention.fa3_backend:FA3Attention",
    "cudnn": "quire.attention.cudnn_backend:CudnnAttention",
}
# Kernels of other packages, compared with our own before they are used.
OPTIONAL = frozenset({"flashinfer", "fa3", "cudnn"})
_OURS = "triton"
# Whose decode steps read a prefix that rows share once (`GroupBatch.shared`).
READ_SHARED_PREFIXES = frozenset({"triton", "flashinfer", "cudnn"})

# (theirs, ours, problem) -> reasons against theirs
Check = Callable[[type[AttentionBackend], type[AttentionBackend], AttentionProblem], list[str]]


def select_backend(
    names: str, problems: Iterable[AttentionProblem], check: Check = disagreements
) -> type[AttentionBackend]:
    """The first of ``names`` ("fa3,triton": in order of preference) that serves all ``problems``.

    A warning tells why one is passed over; a ValueError why the last one cannot.
    """
    *preferred, last = names.split(",")
    distinct = tuple(dict.fromkeys(problems))
    for name in preferred:
        backend, reasons = _examine(name, distinct, check)
        if not reasons:
            return backend
        logger.warning("attention backend %r is not used: %s", name, "; ".join(reasons))
    backend, reasons = _examine(last, distinct, check)
    if reasons:
        raise ValueError(
            f"attention backend {last!r} cannot serve this model: {'; '.join(reasons)}; "
            f"choose another of: {', '.join(BACKENDS)}"
        )
    return backend


def name_of(backend: type[AttentionBackend]) -> str:
    """What the backend is called on the command line."""
    where = f"{backend.__module__}:{backend.__qualname__}"
    return next(name for name, place in BACKENDS.items() if place == where)


def _examine(
    name: str, problems: Iterable[AttentionProblem], check: Check
) -> tuple[type[AttentionBackend], list[str]]:
    """The backend ``name``, and every reason against it."""
    backend = _class_of(name)
    reasons = [reason for problem in problems for reason in backend.why_not(problem)]
    if name in OPTIONAL and not reasons:
        logger.info(
            "attention backend %r is compared with %r; its kernels are compiled now if they never "
            "were, which can take minutes",
            name,
            _OURS,
        )
        ours = _class_of(_OURS)
        reasons = [reason for problem in problems for reason in check(backend, ours, problem)]
    return backend, list(dict.fromkeys(reasons))


def _class_of(name: str) -> type[AttentionBackend]:
    if name not in BACKENDS:
        raise ValueError(
            f"attention backend {name!r} is not known; choose one of: {', '.join(BACKENDS)}"
        )
    module, _, attribute = BACKENDS[name].partition(":")
    backend: type[AttentionBackend] = getattr(import_module(module), attribute)
    return backend
