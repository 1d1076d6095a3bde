"""The unit that measures starts: seconds from before exec to the first token, first with empty
caches of compiled kernels, then with those that the first start has filled.

Python's bytecode counts as installed, since installing a package compiles it. Where the environment
forbids it (``PYTHONDONTWRITEBYTECODE``), a start that is not measured compiles it elsewhere, and a
warm start without it is measured too. The operating system's file cache is left alone: libraries
that were read before are warm.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .engines import DEFAULTS
from .models import max_model_len, write_model
from .records import Records
from .units import DoItem, Unit

SCRIPT = Path(__file__).with_name("first_token.py")
TIMEOUT_S = 150.0
CACHE_VARIABLES = (
    "TRITON_CACHE_DIR",
    "TRITON_HOME",
    "CUDA_CACHE_PATH",
    "TORCHINDUCTOR_CACHE_DIR",
    "FLASHINFER_WORKSPACE_BASE",
    "XDG_CACHE_HOME",
)


WITHOUT_BYTECODE = "warm, no bytecode"


@contextmanager
def startup_unit(unit: Unit, records: Records) -> Iterator[DoItem]:
    """Items are models. Does not use the device itself, so that the child has all of it."""
    with tempfile.TemporaryDirectory() as bytecode:
        yield _Starts(unit, records, Path(bytecode)).do


class _Starts:
    def __init__(self, unit: Unit, records: Records, bytecode: Path) -> None:
        self._engine: dict[str, Any] = unit.options["engine"]
        self._records = records
        self._bytecode = bytecode if sys.dont_write_bytecode else None

    def do(self, item: str) -> None:
        with tempfile.TemporaryDirectory() as root:
            folder = write_model(Path(root), item)
            caches = Path(root) / "caches"
            bytecode, hows = self._bytecode, ["cold", "warm"]
            if bytecode is not None:
                hows.append(WITHOUT_BYTECODE)
                if not any(bytecode.iterdir()):
                    start_once(folder, item, Path(root) / "unused", self._engine, bytecode)
            for how in hows:
                installed = None if how == WITHOUT_BYTECODE else bytecode
                result = start_once(folder, item, caches, self._engine, installed)
                self._records.add("startup", model=item, how=how, **result)
                phases = ", ".join(f"{name} {s:.1f}" for name, s in result["phases"].items())
                print(
                    f"start {item}, {how}: first token after {result['first_token']:.1f} s "
                    f"(python {result['python']:.1f}, imports and config "
                    f"{result['imports and config']:.1f}, {phases})",
                    flush=True,
                )


def start_once(
    folder: Path, model: str, caches: Path, engine: dict[str, Any], bytecode: Path | None
) -> dict[str, Any]:
    """Start an engine in a process of its own; ``bytecode``: where Python keeps it, None for where
    the environment says."""
    options = {
        "load_format": DEFAULTS["load_format"], "max_model_len": max_model_len(model), **engine
    }  # fmt: skip
    environment = {**os.environ, **{name: str(caches / name) for name in CACHE_VARIABLES}}
    if bytecode is not None:
        environment |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(bytecode)}
    words = [sys.executable, str(SCRIPT), str(folder)]
    ended = subprocess.run(
        [*words, repr(time.time()), json.dumps(options)],
        env=environment, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    if ended.returncode != 0:
        raise RuntimeError(f"the start of {model} ended with status {ended.returncode}")
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result
