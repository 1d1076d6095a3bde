"""What a start does, in which order, and what it tells of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from quire.args import EngineArgs
from quire.engine.build import build_core
from quire.resolve import resolve
from quire.worker import worker
from tests.fakes.model_folders import write_model_folder


def test_the_phases_of_a_start_are_told_and_kernels_are_compiled_in_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(worker, "rehearse_graphs", lambda config, loaded: told.append("rehearsal"))
    folder = write_model_folder(tmp_path)
    args = EngineArgs(str(folder), device="cpu", load_format="dummy", kv_cache_memory_bytes="1MiB")
    core = build_core(resolve(args), told.append)
    phases = list(core.facts.phase_seconds)
    core.close()
    assert told == [
        *("weights", "kernels", "rehearsal", "memory", "KV cache and graphs", "warm-up"),
    ]
    assert phases == [phase for phase in told if phase != "rehearsal"]
