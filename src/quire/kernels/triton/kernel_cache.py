"""Where Triton keeps the kernels that it compiles, and `cuda/compiler.py` its own."""

from __future__ import annotations

import logging
from pathlib import Path

from triton import knobs

from quire.kernels import kept_folders

logger = logging.getLogger(__name__)


def choose_folder() -> None:
    """Another folder for Triton's cache if nothing can be written to the one it would take, as in
    containers: without one it compiles nothing. One that has kernels stays: an image may bring
    them all."""
    named = Path(knobs.cache.dir)
    if named.is_dir() and any(named.iterdir()):
        return
    try:
        kept_folders.made_writable(named, is_private=False)
    except OSError as error:
        folder = kept_folders.writable_folder() / "triton"
        logger.warning(
            "GPU kernels cannot be kept in %s (%s); they are kept in %s. TRITON_CACHE_DIR names "
            "another folder",
            named,
            error.strerror,
            folder,
        )
        knobs.cache.dir = str(folder)
