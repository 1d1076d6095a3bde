"""Which way of choosing tokens a device gets. Nothing else in this package asks for the device."""

from __future__ import annotations

import torch

from quire.sampling.choice import MakeChoice


def choice_for(device: torch.device) -> MakeChoice:
    """Kernels on a GPU, torch's operations elsewhere."""
    if device.type == "cuda":
        from quire.sampling.device_choice import DeviceChoice

        return DeviceChoice
    from quire.sampling.host_choice import HostChoice

    return HostChoice
