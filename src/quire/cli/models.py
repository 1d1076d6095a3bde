"""The architectures that Quire implements: their names as config.json spells them, examples of
models on the hub, and what is special about each family.

  quire models            a table
  quire models --json     the same for programs
"""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap

_MAX_WIDTH = 100
_OTHERS = (
    "Other decoders that transformers implements run through its code, with paged attention;\n"
    "--model-impl transformers does the same for those that are listed here."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    from quire.models.catalog import Family
    from quire.models.registry import supported_families
    from quire.plugins import load_plugins

    load_plugins()
    found: list[Family] = supported_families()
    if arguments.json:
        print(json.dumps([family.to_json() for family in found], indent=2))
        return 0
    width = max(len(family.name) for family in found) + 2
    for family in found:
        texts = (", ".join(family.architectures), family.special, ", ".join(family.examples))
        lines = [line for text in texts for line in _wrapped(text, width)]
        print("\n".join([f"{family.name:<{width}}{lines[0].lstrip()}", *lines[1:]]))
    print(f"\n{_OTHERS}")
    return 0


def _wrapped(text: str, indent: int) -> list[str]:
    width = min(shutil.get_terminal_size().columns, _MAX_WIDTH)
    return textwrap.wrap(
        text,
        max(width, indent + 40),
        initial_indent=" " * indent,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )
