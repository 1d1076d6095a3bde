"""Plug-ins: packages that add to Quire when they are installed. Knows nothing about what they add.

A package names a function in the entry-point group ``quire.plugins``; it is called once in every
process, before a model is looked up. Imports no torch.
"""

from __future__ import annotations

import functools
import logging
from importlib.metadata import entry_points

from quire.errors import PluginError

GROUP = "quire.plugins"

logger = logging.getLogger(__name__)


@functools.cache
def load_plugins() -> None:
    """Call every plug-in's function; a PluginError names the one that fails."""
    for one in sorted(entry_points(group=GROUP)):
        package = one.dist.name if one.dist is not None else "an unknown package"
        try:
            one.load()()
        except Exception as error:  # foreign code: whatever it raises is its failure
            raise PluginError(
                f"the plug-in {one.name!r} ({one.value}, of {package}) failed with "
                f"{type(error).__name__}: {error}; repair or uninstall {package}"
            ) from error
        logger.info("plug-in %r of %s loaded", one.name, package)
