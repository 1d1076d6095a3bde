"""Which kernels a device gets, as one set: layers ask once, when they load their weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernels:
    """Functions of the same meaning for every device; `reference` defines them."""

    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    add_rms_norm: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    layer_norm: Callable[[Tensor, Tensor | None, Tensor | None, float], Tensor]
    add_layer_norm: Callable[[Tensor, Tensor, Tensor | None, Tensor | None, float], Tensor]
    gated_activation: Callable[[str], Callable[[Tensor], Tensor]]  # of an activation's name


@lru_cache
def kernels_for(device: torch.device) -> Kernels:
    """Triton's on a GPU, torch's elsewhere."""
    return _triton() if device.type == "cuda" else _reference()


def _reference() -> Kernels:
    from quire.kernels.reference import activation, norm

    return Kernels(
        rms_norm=norm.rms_norm,
        add_rms_norm=norm.add_rms_norm,
        layer_norm=norm.layer_norm,
        add_layer_norm=norm.add_layer_norm,
        gated_activation=activation.gated,
    )


def _triton() -> Kernels:
    from quire.kernels.triton import activation, norm

    return Kernels(
        rms_norm=norm.rms_norm,
        add_rms_norm=norm.add_rms_norm,
        layer_norm=norm.layer_norm,
        add_layer_norm=norm.add_layer_norm,
        gated_activation=activation.gated,
    )
