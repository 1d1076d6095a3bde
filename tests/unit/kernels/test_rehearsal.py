"""In a rehearsal kernels are compiled, not launched, and nothing holds chance values."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from quire.kernels.rehearsal import _Loader, is_rehearsal, launcher_of, rehearse


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

    def work() -> None:
        assert is_rehearsal()
        launcher_of(kernel, (2, 3))(6, SIZE=9)

    launcher_of(kernel, (1,))(5, SIZE=8)
    rehearse(work)
    launcher_of(kernel, (4,))(7)
    assert kernel.calls == [
        ("launched", (1,), (5,), {"SIZE": 8}),
        ("compiled", (2, 3), (6,), {"SIZE": 9}),
        ("launched", (4,), (7,), {}),
    ]


def test_other_threads_go_on_launching() -> None:
    kernel = Kernel()

    def work() -> None:
        other = threading.Thread(target=lambda: launcher_of(kernel, (1,))(5))
        other.start()
        other.join()

    rehearse(work)
    assert [what for what, *_ in kernel.calls] == ["launched"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_nothing_of_one_that_was_broken_off_remains(error: type[BaseException]) -> None:
    def break_off() -> None:
        raise error

    with pytest.raises(error):
        rehearse(break_off)
    assert not is_rehearsal()
    kernel = Kernel()
    rehearse(lambda: launcher_of(kernel, (1,))())
    assert [what for what, *_ in kernel.calls] == ["compiled"]


def test_new_tensors_are_zeros() -> None:
    dirty = torch.full((1 << 16,), 7.0)
    del dirty  # what follows is likely to get its memory
    like = torch.ones(3, 1 << 14)
    made: list[torch.Tensor] = []

    def work() -> None:
        made.extend([torch.empty(1 << 16), torch.empty_like(like), like.new_empty(2, 1 << 15)])

    rehearse(work)
    assert [int(one.count_nonzero()) for one in made] == [0, 0, 0]
    assert int(like.count_nonzero()) == like.numel()


class Compiled:
    """What Triton has compiled: it is loaded when its launcher is asked for."""

    def __init__(self, error: Exception | None) -> None:
        self._error, self._run = error, None
        self.num_loads = 0

    @property
    def run(self) -> object:
        self.num_loads += 1
        self._run = "launcher"  # before the binary is there, as Triton does it
        if self._error is not None:
            raise self._error
        return self._run


def test_what_was_compiled_is_loaded_in_the_thread_and_fails_only_when_it_is_launched() -> None:
    with _Loader(1) as threads:
        good = threads.submit(lambda: Compiled(None)).result()
        bad = threads.submit(lambda: Compiled(RuntimeError("no memory"))).result()
        broken = threads.submit(lambda: 1 // 0)
    assert (good._run, good.num_loads) == ("launcher", 1)
    assert (bad._run, bad.num_loads) == (None, 1)
    assert isinstance(broken.exception(), ZeroDivisionError)
