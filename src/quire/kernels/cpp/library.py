"""The compiled library: its functions, and why there may be none."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_int64, c_void_p
from functools import cache

import torch
from torch import Tensor

from quire import env
from quire.kernels.cpp.compiler import compiled

_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


class Cache(ctypes.Structure):
    """``Cache`` of common.h: where the values of a KV cache are."""

    _fields_ = [
        (name, c_int64)
        for name in ("plane_stride", "block_stride", "token_stride", "head_stride", "block_size")
    ]

    @classmethod
    def of(cls, kv_cache: Tensor) -> Cache:
        plane, block, token, head, _ = kv_cache.stride()
        return cls(plane if len(kv_cache) > 1 else 0, block, token, head, kv_cache.shape[2])


@cache
def function(name: str, dtype: torch.dtype) -> Callable[[ctypes.Structure], None]:
    """The function ``name`` for tensors of ``dtype``; it takes the structure that its C++ declares.

    Only for machines against which `why_not` has nothing.
    """
    library = _library()
    assert not isinstance(library, str), library
    found = getattr(library, f"{name}_{_NAMES[dtype]}")
    found.argtypes, found.restype = [c_void_p], None
    return lambda args: found(ctypes.byref(args))


def pointer(values: Tensor | None) -> int | None:
    return None if values is None else values.data_ptr()


def why_not() -> list[str]:
    """Why this machine has no such kernels; an empty list means it has."""
    library = _library()
    return [library] if isinstance(library, str) else []


@cache
def _library() -> ctypes.CDLL | str:
    """The library, or the reason against it."""
    if not env.CPP_KERNELS.get():
        return f"{env.CPP_KERNELS.source()} switches them off"
    try:
        kept = compiled()
    except (OSError, RuntimeError) as error:
        return str(error)
    try:
        return ctypes.CDLL(str(kept))
    except OSError as error:
        return f"{error}; remove the file, or let XDG_CACHE_HOME name another folder"
