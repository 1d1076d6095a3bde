"""CUDA C++ to machine code by NVRTC, in threads; kept on disk beside Triton's own kernels.

Needs no GPU.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from cuda import bindings
from triton import knobs

_OPTIONS = ("--gpu-architecture=sm_90a", "--std=c++17")


def source_of(*names: str) -> str:
    """The texts of ``.cu`` files of this folder behind that of ``common.cu``."""
    here = Path(__file__).parent
    return "".join((here / name).read_text() for name in ("common.cu", *names))


def compile_later(source: str, defines: Sequence[str]) -> Future[bytes]:
    """`compiled`, in a thread."""
    return _threads().submit(compiled, source, defines)


def compiled(source: str, defines: Sequence[str] = ()) -> bytes:
    """Machine code for Hopper of ``source`` with macros ``NAME=value``.

    Raises RuntimeError with NVRTC's log where it does not compile. Code that is on disk already is
    read from there, and NVRTC is not even loaded.
    """
    options = [*_OPTIONS, *(f"-D{define}" for define in defines)]
    named = hashlib.sha256("\0".join([source, *options, bindings.__version__]).encode())
    kept = Path(knobs.cache.dir) / f"quire-{named.hexdigest()[:40]}.cubin"
    if kept.exists():
        return kept.read_bytes()
    code = _compile(source, options)
    kept.parent.mkdir(parents=True, exist_ok=True)
    written = kept.with_suffix(f".{uuid.uuid4().hex}")
    written.write_bytes(code)
    os.replace(written, kept)  # atomic, since other processes may be writing it too
    return code


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="quire-nvrtc")


def _compile(source: str, options: Sequence[str]) -> bytes:
    from cuda.bindings import nvrtc

    program = _checked(nvrtc.nvrtcCreateProgram(source.encode(), b"", 0, [], []))
    given = [option.encode() for option in options]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(given), given)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        words = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
        nvrtc.nvrtcGetProgramLog(program, words)
        raise RuntimeError(f"a CUDA kernel does not compile: {words.decode(errors='replace')}")
    code = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
    _checked(nvrtc.nvrtcGetCUBIN(program, code))
    _checked(nvrtc.nvrtcDestroyProgram(program))
    return code


def _checked(result: tuple[Any, ...]) -> Any:
    status, *values = result
    if int(status):
        raise RuntimeError(f"NVRTC: {status!r}")
    return values[0] if values else None
