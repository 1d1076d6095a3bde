"""One thread for each test process, and no settings from the developer's own environment."""

from __future__ import annotations

import os

import pytest

from quire import env

# Before torch and tokenizers are imported, which read them once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in env.REGISTRY:
        for name in variable.names:
            if name != "OMP_NUM_THREADS":
                monkeypatch.delenv(name, raising=False)
