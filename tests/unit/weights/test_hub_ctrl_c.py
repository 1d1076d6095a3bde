"""Ctrl-C while a model is downloaded."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from quire.errors import ModelLoadError
from quire.weights.hub import resolve_model
from tests.fakes.hub import NAME, FakeHub


@pytest.fixture(autouse=True)
def pythons_own_handler() -> Iterator[None]:
    """Programs in the background are started without it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_says_that_files_under_way_still_arrive(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def download(*args: object, **options: object) -> None:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert "press Ctrl-C again to end at once" in caplog.text
        caplog.clear()
        signal.raise_signal(signal.SIGINT)  # while it waits for them

    monkeypatch.setattr("quire.weights.hub_huggingface.snapshot_download", download)
    with pytest.raises(KeyboardInterrupt):
        resolve_model(NAME)
    assert caplog.text == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_is_left_to_a_programs_own_handler(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[int] = []

    def take(signum: int, frame: object) -> None:
        taken.append(signum)

    def download(*args: object, **options: object) -> None:
        signal.raise_signal(signal.SIGINT)
        raise ConnectionError("no route")

    monkeypatch.setattr("quire.weights.hub_huggingface.snapshot_download", download)
    before = signal.signal(signal.SIGINT, take)
    try:
        with pytest.raises(ModelLoadError, match="no route"):
            resolve_model(NAME)
        assert signal.getsignal(signal.SIGINT) is take
    finally:
        signal.signal(signal.SIGINT, before)
    assert taken == [signal.SIGINT]
    assert "Ctrl-C" not in caplog.text
