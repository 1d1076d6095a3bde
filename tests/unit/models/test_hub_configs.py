"""Configs of well-known models, as their repositories hold them, and the number of parameters that
the hub shows for their files: every key is understood and every tensor has its size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quire.models.loading import plan_of

_MODELS = json.loads(Path(__file__).with_name("hub_configs.json").read_text())


@pytest.mark.parametrize("entry", _MODELS, ids=lambda entry: entry["model"])
def test_published_models_have_their_published_size(entry: dict[str, Any]) -> None:
    config = entry["config"]
    plan = plan_of(config, config["architectures"][0])
    assert plan.spec.num_parameters == entry["parameters"]
