"""What kernels ask for before they are launched. The driver stands for a GPU's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import triton

from quire.kernels.cuda import availability
from quire.kernels.rehearsal import rehearse
from quire.kernels.triton.launch import prefer_cache
from tests.unit.kernels.fake_driver import FakeDriver, fake_driver

LAUNCHED = SimpleNamespace(function=77)


def asked(driver: FakeDriver) -> list[tuple[int, int]]:
    return [(int(function), percent) for function, percent in driver.shares]


@pytest.fixture
def on_hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    monkeypatch.setattr(availability, "why_not_here", list)


@pytest.mark.usefixtures("on_hopper")
def test_a_kernel_asks_once_for_all_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_driver(monkeypatch) as driver:
        for _ in range(2):
            prefer_cache(LAUNCHED)
        assert asked(driver) == [(77, 0)]


@pytest.mark.usefixtures("on_hopper")
def test_what_is_only_compiled_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    with fake_driver(monkeypatch) as driver:
        rehearse(lambda: prefer_cache(None))
        assert asked(driver) == []


def test_elsewhere_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "why_not_here", lambda: ["this is no Hopper GPU"])
    with fake_driver(monkeypatch) as driver:
        prefer_cache(None)
        assert asked(driver) == []
