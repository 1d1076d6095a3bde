"""Results as JSON and on the screen, under the keys that users of other engines read."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quire.args import as_argument

PERCENTILES = (10, 25, 50, 75, 90, 99)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    return {str(p): float(np.percentile(values, p)) for p in PERCENTILES}


def output_file(text: str) -> str:
    """``text``; ``ValueError`` if no file of that name could be written, for use before the run."""
    path = Path(text)
    folder = path.parent
    if path.is_dir():
        raise ValueError(f"{text} is a folder; give the name of a file")
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder} for {text}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ValueError(f"{text} cannot be written; give another file")
    return text


def add_output_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output-json",
        type=as_argument(output_file),
        metavar="FILE",
        help="write the results here",
    )


def write_json(path: str | None, results: Mapping[str, Any]) -> None:
    """Write ``results`` to ``path``, if one was given."""
    if path is not None:
        Path(path).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
