"""Plug-ins: packages that add to Quire when they are installed. Knows nothing about what they add.

A package names a function in the entry-point group ``quire.plugins``; it is called once in every
process, before a model is looked up. Where `import vllm` is Quire, so are those that vLLM would
call. Imports no torch.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points

from quire import env, log
from quire.compat import BATCH_PROCESSORS, PLUGIN
from quire.errors import PluginError

GROUP = "quire.plugins"
_VLLM = "vllm"
_GROUP_OF_VLLM = "vllm.general_plugins"
_WHY_NOT = {"vllm.logits_processors": BATCH_PROCESSORS}  # of the other groups: PLUGIN

logger = logging.getLogger(__name__)


@functools.cache
def load_plugins() -> None:
    """Call every plug-in's function; a PluginError names the one that fails."""
    for one in sorted(entry_points(group=GROUP)):
        _call(one)
    if _vllm_is_quire():
        _load_those_of_vllm()


def _call(one: EntryPoint) -> None:
    package = _package(one)
    try:
        one.load()()
    except Exception as error:  # foreign code: whatever it raises is its failure
        raise PluginError(
            f"the plug-in {one.name!r} ({one.value}, of {package}) failed with "
            f"{type(error).__name__}: {error}; repair or uninstall {package}"
        ) from error
    logger.info("plug-in %r of %s loaded", one.name, package)


def _package(one: EntryPoint) -> str:
    return one.dist.name if one.dist is not None else "an unknown package"


def _vllm_is_quire() -> bool:
    """Whether the finder of `as_vllm`, which this module may not import, is installed."""
    return any(type(one).__module__ == "quire.as_vllm.finder" for one in sys.meta_path)


def _load_those_of_vllm() -> None:
    """Call those that do not depend on vLLM's own machinery, and warn of the others. One that
    fails is only logged: it may have nothing to do with the program."""
    log.setup()  # a program may ask for plug-ins before there is an engine
    for one in _those_of_vllm():
        if one.group != _GROUP_OF_VLLM:
            why = _WHY_NOT.get(one.group, PLUGIN)
            package = _package(one)
            logger.warning("%s %r of %s has no effect: %s", one.group, one.name, package, why)
            continue
        try:
            _call(one)
        except PluginError as error:
            logger.error("%s, or leave it out of VLLM_PLUGINS", error)


def _those_of_vllm() -> Iterator[EntryPoint]:
    """Those that VLLM_PLUGINS chooses, by default all, without those of an installed vLLM."""
    chosen = env.VLLM_PLUGINS.get()
    for group in sorted(entry_points().groups):
        if not group.startswith(f"{_VLLM}."):
            continue
        for one in sorted(entry_points(group=group)):
            if _package(one) != _VLLM and (chosen is None or one.name in chosen):
                yield one
