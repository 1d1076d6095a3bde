"""In a rehearsal kernels are compiled, not launched, and nothing holds chance values."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from quire.kernels.rehearsal import is_rehearsal, launch, rehearsal


class Kernel:
    """Notes what is done with it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[int, ...], tuple[Any, ...], dict[str, Any]]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *args, **options: self.calls.append(("launched", grid, args, options))

    def warmup(self, *args: Any, grid: tuple[int, ...], **options: Any) -> None:
        self.calls.append(("compiled", grid, args, options))


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)


def test_kernels_are_compiled_inside_and_launched_before_and_after() -> None:
    kernel = Kernel()
    launch(kernel, (1,))(5, SIZE=8)
    with rehearsal():
        assert is_rehearsal()
        launch(kernel, (2, 3))(6, SIZE=9)
    launch(kernel, (4,))(7)
    assert kernel.calls == [
        ("launched", (1,), (5,), {"SIZE": 8}),
        ("compiled", (2, 3), (6,), {"SIZE": 9}),
        ("launched", (4,), (7,), {}),
    ]


def test_other_threads_go_on_launching() -> None:
    kernel = Kernel()
    with rehearsal():
        other = threading.Thread(target=lambda: launch(kernel, (1,))(5))
        other.start()
        other.join()
    assert [what for what, *_ in kernel.calls] == ["launched"]


def test_it_ends_with_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), rehearsal():
        _ = 1 / 0
    assert not is_rehearsal()


def test_new_tensors_are_zeros() -> None:
    dirty = torch.full((1 << 16,), 7.0)
    del dirty  # what follows is likely to get its memory
    with rehearsal():
        like = torch.ones(3, 1 << 14)
        made = [torch.empty(1 << 16), torch.empty_like(like), like.new_empty(2, 1 << 15)]
    assert [int(one.count_nonzero()) for one in made] == [0, 0, 0]
    assert int(like.count_nonzero()) == like.numel()
