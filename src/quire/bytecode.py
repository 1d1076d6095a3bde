"""Tells users whose Python compiles all packages again at every start, and how to end that.

Installing a package usually compiles it to bytecode. Some images leave that out, and also forbid
Python to keep what it compiles.
"""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec
from pathlib import Path

logger = logging.getLogger(__name__)


def tell_if_not_kept(package: str = "torch") -> None:
    """Log it if the bytecode of the package, which has been imported, is on no disk."""
    spec = find_spec(package)
    if spec is None or spec.origin is None or spec.cached is None or Path(spec.cached).exists():
        return
    folder = Path(spec.origin).parent.parent
    cause = (
        "PYTHONDONTWRITEBYTECODE or -B forbids it"
        if sys.dont_write_bytecode
        else f"{Path(spec.cached).parent} cannot be written"
    )
    logger.info(
        "Python compiled %s and other packages for this start and does so at each one, which takes "
        "seconds, because it may not keep their bytecode: %s. `python -m compileall -q %s`, run "
        "once, ends that",
        package, cause, folder,
    )  # fmt: skip
