"""Every architecture that is registered is compared with a reference under that very name."""

from __future__ import annotations

import json
from pathlib import Path

from quire.models.registry import ModelRegistry
from tests.models.configs import PARITY_ROWS

# `test_goldens` runs these checkpoints under these names too.
_OTHER_NAMES_OF_GOLDENS = {"ChatGLMForConditionalGeneration"}


def test_every_name_has_a_row_or_a_golden() -> None:
    own = {
        name
        for name in ModelRegistry.get_supported_archs()
        if ModelRegistry.where(name).startswith("quire.models.architectures.")
    }
    configs = Path(__file__).parent.glob("goldens/*/config.json")
    goldens = {json.loads(path.read_text(encoding="utf-8"))["architectures"][0] for path in configs}
    assert own == {row.architecture for row in PARITY_ROWS} | goldens | _OTHER_NAMES_OF_GOLDENS
