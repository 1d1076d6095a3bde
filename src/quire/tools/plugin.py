"""Loads parsers of a user's own from a Python file.

The file has ``TOOL_PARSERS``, a dict from names to functions that make a `ToolParser` from the
request's `Tools`, or to a `ToolFormat`, which can set more.
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path

from quire.tools.registry import ToolFormat


def load_tool_parsers(path: str) -> dict[str, ToolFormat]:
    """The formats that a plug-in file defines; errors of its own code are raised unchanged."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"--tool-parser-plugin: there is no file {path!r}; give a Python file")
    found = runpy.run_path(str(file)).get("TOOL_PARSERS")
    if not isinstance(found, Mapping) or not found:
        raise ValueError(
            f"--tool-parser-plugin: {path!r} has no TOOL_PARSERS; make it a dict from the names of "
            "parsers to functions that make them: TOOL_PARSERS = {'mine': MyParser}"
        )
    formats: dict[str, ToolFormat] = {}
    for name, one in found.items():
        if not isinstance(one, ToolFormat) and not callable(one):
            raise ValueError(
                f"--tool-parser-plugin: TOOL_PARSERS[{name!r}] of {path!r} is {one!r}; it must be "
                "a function of the tools that makes a parser, or a ToolFormat"
            )
        is_format = isinstance(one, ToolFormat)
        formats[str(name)] = one if is_format else ToolFormat(name=str(name), parser=one)
    return formats
