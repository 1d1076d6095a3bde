"""A lost device ends the engine; any other error stays what it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from quire.errors import EngineDeadError
from quire.worker.device_errors import LostDeviceEndsEngine, probe_of
from quire.worker.step_graphs import NO_ROWS
from quire.worker.step_timeout import StepLabel

LABEL = StepLabel(plan=replace(NO_ROWS, step_id=3), is_graph=False)


def lost() -> None:
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def well() -> None:
    pass


def test_an_error_of_a_device_that_is_lost_ends_the_engine() -> None:
    message = r"lost in step 3 .*computed by operation(.|\n)*RuntimeError: Triton Error"
    with (
        pytest.raises(EngineDeadError, match=message),
        LostDeviceEndsEngine(lost, LABEL),
    ):
        raise RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered")


@pytest.mark.parametrize("error", [RuntimeError("shapes"), ValueError("no"), KeyError("k")])
def test_an_error_of_a_device_that_goes_on_is_the_steps(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, LostDeviceEndsEngine(well, LABEL):
        raise error
    assert raised.value is error


def test_memory_that_ran_out_is_the_steps_error() -> None:
    with (
        pytest.raises(torch.OutOfMemoryError),
        LostDeviceEndsEngine(lost, LABEL),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_an_engine_that_is_dead_already_keeps_its_reason() -> None:
    with (
        pytest.raises(EngineDeadError, match="hangs"),
        LostDeviceEndsEngine(lost, LABEL),
    ):
        raise EngineDeadError("the device hangs")


def test_a_cpu_is_never_lost() -> None:
    probe = probe_of(torch.device("cpu"))
    with pytest.raises(RuntimeError, match="shapes"), LostDeviceEndsEngine(probe, LABEL):
        raise RuntimeError("shapes")
