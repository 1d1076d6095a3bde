"""Tells errors after which a device cannot go on from those that concern one step.

After an illegal access or a failed assertion in a kernel, the CUDA context of the process is
unusable: all later calls fail with the same error, so trying requests again one by one would end
them all. Memory that ran out, or a launch with wrong arguments, leaves it as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import torch

from quire.errors import EngineDeadError
from quire.worker.step_timeout import StepLabel

Probe = Callable[[], None]  # raises if the device is lost


def probe_of(device: torch.device) -> Probe:
    return torch.cuda.synchronize if device.type == "cuda" else _nothing


class LostDeviceEndsEngine:
    """A context in which a RuntimeError becomes an `EngineDeadError` if the device is lost."""

    __slots__ = ("_label", "_probe")

    def __init__(self, probe: Probe, label: StepLabel) -> None:
        self._probe = probe
        self._label = label

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        is_of_step = isinstance(error, (EngineDeadError, torch.OutOfMemoryError))
        if isinstance(error, RuntimeError) and not is_of_step:
            _check(self._probe, self._label, error)


def _check(probe: Probe, label: StepLabel, error: RuntimeError) -> None:
    try:
        probe()  # sync: a step has failed already
    except RuntimeError:
        cause = f"{type(error).__name__}: {error}"
        raise EngineDeadError(
            f"the device was lost in {label}; start the engine anew\n{cause}"
        ) from error


def _nothing() -> None:
    pass
