"""What kernels need of other packages, fetched while a start imports torch and waits for files.

Triton names what it has compiled by a digest of all its own files, its library among them. Nothing
depends on this but the time that a start takes. Imports neither torch nor Triton itself.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

# One of these exists where there may be an NVIDIA GPU. torch would know for certain, but is what
# the start is waiting for.
_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


def preload_kernels(device: str) -> None:
    """Compute Triton's digest in a thread, if ``device``, as the user named it, may be a GPU."""
    if device != "cpu" and any(driver.exists() for driver in _DRIVERS):
        threading.Thread(target=_preload, name="quire-preload", daemon=True).start()


def _preload() -> None:
    with suppress(Exception):  # whoever needs the digest next reports what is wrong
        from triton.runtime.cache import triton_key

        triton_key()  # keeps its result
