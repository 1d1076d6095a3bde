"""A rehearsal: whatever some work would launch is compiled, in threads, and none of it runs.

Compiling is most of a first start, and otherwise each kernel is compiled when it is first launched,
one after another. What kernels would write is zeros in a rehearsal, so that the operations between
them find places that exist; what comes out means nothing. Knows no kernel.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_is_on = ContextVar("quire_rehearsal", default=False)
_UNWRITTEN = frozenset({torch.empty, torch.empty_like, torch.Tensor.new_empty})


def is_rehearsal() -> bool:
    return _is_on.get()


def launcher_of(kernel: Any, grid: tuple[int, ...]) -> Callable[..., Any]:
    """``kernel[grid]`` for a Triton kernel; in a rehearsal, a function that only compiles it."""
    if not _is_on.get():
        launcher: Callable[..., Any] = kernel[grid]
        return launcher
    return lambda *args, **options: kernel.warmup(*args, grid=grid, **options)


def rehearse(work: Callable[[], object]) -> None:
    """Compile every kernel that ``work`` launches, and return when all are compiled.

    A kernel that does not compile raises later, when it is launched. ``work`` runs in a context of
    its own, so that this thread is in no rehearsal afterwards, whatever happens.
    """
    contextvars.copy_context().run(_rehearse, work)


def _rehearse(work: Callable[[], object]) -> None:
    from triton import AsyncCompileMode

    _is_on.set(True)
    device = torch.cuda.current_device()
    with (
        _Loader(initializer=torch.cuda.set_device, initargs=(device,)) as threads,
        AsyncCompileMode(threads, ignore_errors=True),
        _Zeros(),
    ):
        work()


class _Loader(ThreadPoolExecutor):
    """Compiler threads that also load each kernel onto the device and build its launcher."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        return super().submit(lambda: _loaded(work(*args, **options)))


def _loaded(kernel: Any) -> Any:
    try:
        _ = kernel.run
    except Exception:
        kernel._run = None  # it may be half loaded; unset, so that its launch loads it again
    return kernel


class _Zeros(TorchFunctionMode):
    """Fills tensors that would be left uninitialised with zeros: what they happen to hold might be
    used as indices."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        return made.zero_() if func in _UNWRITTEN else made
