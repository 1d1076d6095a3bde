"""Makes `import vllm` and the command `vllm` be Quire in the processes that a program starts, too.

A temporary folder, removed when the program ends, holds a `sitecustomize.py`, which every Python
runs at start-up, and a command `vllm`; PYTHONPATH and PATH lead there.
"""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from quire import env

_SITECUSTOMIZE = '''\
"""Runs the sitecustomize that this one hides; then makes `import vllm` find Quire."""

import importlib.machinery
import importlib.util
import os
import sys


def _next():
    here = os.path.dirname(os.path.abspath(__file__))
    path = [one for one in sys.path if os.path.abspath(one) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


_next()
if importlib.util.find_spec("quire") is not None:  # not in every Python that a program may start
    from quire.as_vllm import install

    install()
'''
_COMMAND = '#!/bin/sh\nexec {python} -m quire.as_vllm -m vllm.entrypoints.cli.main "$@"\n'


def prepare_children() -> None:
    """Set up that folder and the variables for all processes that this one starts from now on."""
    if env.AS_VLLM.get():
        return  # this is a child itself
    folder = Path(tempfile.mkdtemp(prefix="quire-as-vllm-"))
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE, encoding="utf-8")
    command = folder / "vllm"
    command.write_text(_COMMAND.format(python=shlex.quote(sys.executable)), encoding="utf-8")
    command.chmod(0o755)
    os.environ[env.AS_VLLM.names[0]] = str(folder)
    for variable in ("PYTHONPATH", "PATH"):
        before = os.environ.get(variable)
        os.environ[variable] = os.pathsep.join([str(folder), *([before] if before else [])])
    atexit.register(_remove, folder, os.getpid())


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a fork of the program
        shutil.rmtree(folder, ignore_errors=True)
