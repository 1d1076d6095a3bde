"""Which attention backends a model gets: those named that can solve every problem of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from quire.attention.backend import AttentionBackend, AttentionProblem
from quire.attention.start_up_check import disagreements

if TYPE_CHECKING:
    from quire.attention.long_prompts import LongPromptAttention

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
# For some rows only, so that the next one named goes along.
_FOR_LONG_PROMPTS = frozenset({"fa3", "cudnn"})
# Whose decode steps read a prefix that rows share once (`GroupBatch.shared`).
READ_SHARED_PREFIXES = frozenset({"triton", "flashinfer", "fa3", "cudnn"})

# (theirs, ours, problem) -> reasons against theirs
Check = Callable[[type[AttentionBackend], type[AttentionBackend], AttentionProblem], list[str]]


@dataclass(frozen=True, slots=True)
class Backends:
    """Of one model, each for what those before it leave."""

    names: tuple[str, ...]

    def build(self, problem: AttentionProblem) -> AttentionBackend:
        *for_long_prompts, last = map(_class_of, self.names)
        backend = last.build(problem)
        for one in reversed(for_long_prompts):
            backend = cast("type[LongPromptAttention]", one).build(problem, backend)
        return backend

    def __str__(self) -> str:
        return ",".join(self.names)


def select_backends(
    names: str, problems: Iterable[AttentionProblem], check: Check = disagreements
) -> Backends:
    """Those of ``names`` ("fa3,triton": in order of preference) that serve all ``problems``, up to
    the first that needs no other.

    A warning tells why one is passed over; a ValueError why none is left.
    """
    distinct = tuple(dict.fromkeys(problems))
    chosen: list[str] = []
    refusals: dict[str, str] = {}
    for name in names.split(","):
        reasons = _reasons_against(name, distinct, check)
        if reasons:
            refusals[name] = "; ".join(reasons)
            continue
        chosen.append(name)
        if name not in _FOR_LONG_PROMPTS:
            break
    if not chosen:
        name, reason = refusals.popitem()
    for passed_over, why in refusals.items():
        logger.warning("attention backend %r is not used: %s", passed_over, why)
    if not chosen:
        raise ValueError(
            f"attention backend {name!r} cannot serve this model: {reason}; "
            f"choose another of: {', '.join(BACKENDS)}"
        )
    return Backends(tuple(chosen))


def _reasons_against(name: str, problems: Iterable[AttentionProblem], check: Check) -> list[str]:
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
    return list(dict.fromkeys(reasons))


def _class_of(name: str) -> type[AttentionBackend]:
    if name not in BACKENDS:
        raise ValueError(
            f"attention backend {name!r} is not known; choose one of: {', '.join(BACKENDS)}"
        )
    module, _, attribute = BACKENDS[name].partition(":")
    backend: type[AttentionBackend] = getattr(import_module(module), attribute)
    return backend
