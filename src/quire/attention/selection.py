"""Which attention backends a model gets, of those that were asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, cast

from quire.attention.backend import AttentionBackend, AttentionProblem
from quire.attention.packages import PACKAGES
from quire.attention.start_up_check import disagreements

if TYPE_CHECKING:
    from quire.attention.long_prompts import LongPromptAttention

logger = logging.getLogger(__name__)

# Name, as in `--attention-backend` -> module:class, which is imported when chosen.
BACKENDS: dict[str, str] = {
    "cpp": "quire.attention.cpp_backend:CppAttention",
    "torch": "quire.attention.torch_backend:TorchAttention",
    "triton": "quire.attention.triton_backend:TritonAttention",
    "flashinfer": "quire.attention.flashinfer_backend:FlashInferAttention",
    "fa3": "quire.attention.fa3_backend:FA3Attention",
    "cudnn": "quire.attention.cudnn_backend:CudnnAttention",
}
_OURS = "triton"
# These take some rows only and leave the others to the next backend, and they may refuse some of a
# model's problems. (flashinfer takes every prompt and brings our own kernels for decode rows.)
_FOR_LONG_PROMPTS = frozenset({"fa3", "cudnn"})

# (theirs, ours, problem) -> reasons against theirs
Check = Callable[[type[AttentionBackend], type[AttentionBackend], AttentionProblem], list[str]]


@dataclass(frozen=True, slots=True)
class Backends:
    """The backends of one model in order of preference; each takes what those before it leave."""

    names: tuple[str, ...]
    refused: frozenset[tuple[str, AttentionProblem]] = frozenset()  # which one cannot solve what

    def build(self, problem: AttentionProblem) -> AttentionBackend:
        names = [name for name in self.names if (name, problem) not in self.refused]
        *for_long_prompts, last = map(_class_of, names)
        backend = last.build(problem)
        for one in reversed(for_long_prompts):
            backend = cast("type[LongPromptAttention]", one).build(problem, backend)
        return backend

    def __str__(self) -> str:
        return ",".join(self.names)


def select_backends(
    names: str, problems: Iterable[AttentionProblem], check: Check = disagreements
) -> Backends:
    """Those backends that can solve ``problems``, up to the first that needs no other.

    ``names``: as in "fa3,triton", in order of preference. A warning tells why one is passed over;
    if none is left, a ValueError does.
    """
    distinct = tuple(dict.fromkeys(problems))
    named = names.split(",")
    chosen: list[str] = []
    refused: set[tuple[str, AttentionProblem]] = set()
    refusals: dict[str, str] = {}
    for name in [*named, _OURS] if named[-1] in _FOR_LONG_PROMPTS else named:
        backend = _class_of(name)
        against = {one: _reasons_against(name, backend, one, check) for one in distinct}
        reasons = "; ".join(dict.fromkeys(chain.from_iterable(against.values())))
        takes_some = name in _FOR_LONG_PROMPTS and not all(against.values())
        if reasons and not takes_some:
            refusals[name] = reasons
            continue
        if reasons:
            logger.info("attention backend %r is not for all layers: %s", name, reasons)
        chosen.append(name)
        refused.update((name, problem) for problem, why in against.items() if why)
        if name not in _FOR_LONG_PROMPTS:
            break
    blamed = None
    if not set(chosen) & set(named):  # only our own kernels are left, which nobody asked for
        blamed = named[-1]
    elif chosen[-1] in _FOR_LONG_PROMPTS:
        *_, blamed = refusals
    for name, reasons in refusals.items():
        if name == blamed:
            others = ", ".join(other for other in BACKENDS if other != name)
            raise ValueError(
                f"attention backend {name!r} cannot serve this model: {reasons}; "
                f"choose another of: {others}"
            )
        logger.warning("attention backend %r is not used: %s", name, reasons)
    return Backends(tuple(chosen), frozenset(refused))


def _reasons_against(
    name: str, backend: type[AttentionBackend], problem: AttentionProblem, check: Check
) -> list[str]:
    reasons = backend.why_not(problem)
    if name in PACKAGES and not reasons:  # kernels of another package
        logger.info(
            "attention backend %r is compared with %r; its kernels are compiled now if they never "
            "were, which can take minutes",
            name,
            _OURS,
        )
        reasons = check(backend, _class_of(_OURS), problem)
    return reasons


def _class_of(name: str) -> type[AttentionBackend]:
    if name not in BACKENDS:
        raise ValueError(
            f"attention backend {name!r} is not known; choose one of: {', '.join(BACKENDS)}"
        )
    module, _, attribute = BACKENDS[name].partition(":")
    backend: type[AttentionBackend] = getattr(import_module(module), attribute)
    return backend
