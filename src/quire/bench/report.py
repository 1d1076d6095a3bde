"""Results as JSON and on the screen, under the keys that users of other engines read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

PERCENTILES = (10, 25, 50, 75, 90, 99)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    return {str(p): float(np.percentile(values, p)) for p in PERCENTILES}


def write_json(path: str | None, results: Mapping[str, Any]) -> None:
    """To ``path``, if one was given."""
    if path is not None:
        Path(path).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
