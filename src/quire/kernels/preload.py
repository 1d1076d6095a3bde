"""What kernels need of other packages, fetched while a start imports torch and waits for files.

Triton names what it has compiled by a digest of all its own files, its library among them. Nothing
depends on this but the time that a start takes. Imports neither torch nor Triton itself.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

# One exists where there may be an NVIDIA GPU: torch, which knows, is what the start waits for.
_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


def preload_kernels(device: str) -> None:
    """Begin to, in a thread; ``device`` as the user named it."""
    if device != "cpu" and any(driver.exists() for driver in _DRIVERS):
        threading.Thread(target=_preload, name="quire-preload", daemon=True).start()


def _preload() -> None:
    with suppress(Exception):  # whoever needs it next will say what is wrong
        from triton.runtime.cache import triton_key

        triton_key()  # which remembers it
