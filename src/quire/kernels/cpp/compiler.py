"""Compiles this folder's C++ for the CPU it runs on, and keeps the result on disk.

Knows nothing of what is compiled. The code is linked with the OpenMP library that torch has loaded:
with two of them, both would keep threads on every core.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shlex
import shutil
import subprocess
import uuid
from pathlib import Path

from quire import platform
from quire.kernels import kept_folders

logger = logging.getLogger(__name__)

_SOURCES = ("common.h", "attention.cpp", "heads.cpp", "rows.cpp")
_COMPILERS = ("g++", "c++")
_OPTIONS = (
    "-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno",
    "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared", "-Wl,--no-undefined",
    "-Wl,--as-needed",
)  # fmt: skip
_TIMEOUT_S = 120
_OPENMP = re.compile(r"lib(gomp|iomp5|omp)(-\w+)?\.so[.\d]*")


def compiled() -> Path:
    """The shared library, from disk where it was compiled before; that needs no compiler.

    Raises RuntimeError with what is missing, or with the compiler's message.
    """
    openmp, command = _openmp(), os.environ.get("CXX", "")
    source = "".join((Path(__file__).parent / name).read_text() for name in _SOURCES)
    cpu = [platform.cpu_name(), *sorted(platform.cpu_flags())]
    named = hashlib.sha256("\0".join([source, *_OPTIONS, command, openmp.name, *cpu]).encode())
    name = f"kernels-{named.hexdigest()[:40]}.so"
    kept = kept_folders.find(name)
    if kept is None:
        kept = kept_folders.writable_folder() / name
        _compile(_compiler(command), source, openmp, kept)
    return kept


def _compile(compiler: list[str], source: str, openmp: Path, kept: Path) -> None:
    logger.info("compiling C++ kernels for this CPU, once: some seconds")
    written = kept.with_suffix(f".{uuid.uuid4().hex}")
    path, *own_options = compiler  # which come last, since the last one counts
    files = ["-x", "c++", "-", "-x", "none", str(openmp), "-o", str(written)]
    try:
        _run([path, *_OPTIONS, *own_options, *files], source)
        with written.open("rb+") as file:
            os.fsync(file.fileno())  # part of a library would end the process that loads it
        os.replace(written, kept)  # atomic, since other processes may be writing it too
    finally:
        written.unlink(missing_ok=True)


def _run(command: list[str], text: str) -> None:
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{command[0]} took more than {_TIMEOUT_S} s") from None
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()[-1000:]}")


def _compiler(command: str) -> list[str]:
    """``command`` ($CXX, as for other tools) or else that of a compiler which is there."""
    try:
        named = shlex.split(command)
    except ValueError as error:
        raise RuntimeError(f"CXX is no command: {command!r}: {error}") from error
    for name in named[:1] or _COMPILERS:
        found = shutil.which(name)
        if found:
            return [found, *named[1:]]
    raise RuntimeError(
        f"CXX names {named[0]!r}, which is not an executable file"
        if named
        else "there is no C++ compiler; install one (Debian, Ubuntu: apt install g++)"
    )


def _openmp() -> Path:
    """The OpenMP library that torch brings and has loaded; other packages may bring others."""
    import torch

    lines = Path("/proc/self/maps").read_text().splitlines()
    files = {Path(fields[5]) for line in lines if len(fields := line.split(maxsplit=5)) == 6}
    found = sorted(file for file in files if _OPENMP.fullmatch(file.name))
    if not found:
        raise RuntimeError("this torch is built without OpenMP")
    package = Path(torch.__file__).parent
    folders = (package / "lib", package.parent / "torch.libs")
    own = {file.resolve() for folder in folders for file in folder.glob("lib*omp*")}
    return next((file for file in found if file in own), found[0])
