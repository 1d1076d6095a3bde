"""A differing token is judged with the random numbers of its own completion."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks.gpu_parts import differences as module
from benchmarks.gpu_parts.differences import Request, differences

from quire import SamplingParams
from quire.request import RowSampling


def test_every_completion_of_a_request_has_its_own_seed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seeds: list[int] = []

    def judge(logits: Any, sampling: RowSampling, *rest: Any) -> None:
        seeds.append(sampling.seed)

    def reference(folder: Path, device: str) -> Any:
        return lambda ids: SimpleNamespace(logits=torch.zeros(1, ids.shape[1], 11))

    monkeypatch.setattr(module, "noise_that_exchanges", judge)
    monkeypatch.setattr("benchmarks.gpu_parts.tiny_models.load_reference", reference)
    params = SamplingParams(seed=40, n=2)
    requests = [Request(prompt=[1], params=params, index=index) for index in range(2)]
    found = differences("batch", [[3], [3]], [[4], [4]], requests, tmp_path, "cpu")
    assert [one.is_explained for one in found] == [False, False]
    assert seeds == [40, 41]
