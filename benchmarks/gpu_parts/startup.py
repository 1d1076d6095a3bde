"""The unit that measures starts: seconds from before exec to the first token, first with empty
caches of compiled code, then with those that the first start has filled.

The operating system's file cache is left alone: libraries that were read before are warm.
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


@contextmanager
def startup_unit(unit: Unit, records: Records) -> Iterator[DoItem]:
    """Items are models. Does not use the device itself, so that the child has all of it."""

    def do(item: str) -> None:
        with tempfile.TemporaryDirectory() as root:
            folder = write_model(Path(root), item)
            caches = Path(root) / "caches"
            for how in ("cold", "warm"):
                result = start_once(folder, item, caches, unit.options["engine"])
                records.add("startup", model=item, how=how, **result)
                phases = ", ".join(f"{name} {s:.1f}" for name, s in result["phases"].items())
                print(
                    f"start {item}, {how}: first token after {result['first_token']:.1f} s "
                    f"(python {result['python']:.1f}, imports and config "
                    f"{result['imports and config']:.1f}, {phases})",
                    flush=True,
                )

    yield do


def start_once(folder: Path, model: str, caches: Path, engine: dict[str, Any]) -> dict[str, Any]:
    options = {
        "load_format": DEFAULTS["load_format"], "max_model_len": max_model_len(model), **engine
    }  # fmt: skip
    environment = {**os.environ, **{name: str(caches / name) for name in CACHE_VARIABLES}}
    words = [sys.executable, str(SCRIPT), str(folder)]
    ended = subprocess.run(
        [*words, repr(time.time()), json.dumps(options)],
        env=environment, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    if ended.returncode != 0:
        raise RuntimeError(f"the start of {model} ended with status {ended.returncode}")
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result
