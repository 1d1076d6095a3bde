"""Rotary positions: frequencies from a spec, the angles of a step, and the rotation of heads.

Angles are computed from the positions once per step, in float32: cheaper on a CPU than a table of
every position, and as good for a GPU's fused kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from quire.kernels.reference.rope import rotate_half, rotate_interleaved
from quire.kernels.selection import kernels_for
from quire.layers.spec import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    QwenScaling,
    RopeScaling,
    RopeSpec,
    YarnScaling,
)

Rotate = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x [T, N, D], cos, sin) -> x turned

_ROTATIONS: dict[str, Rotate] = {"half": rotate_half, "interleaved": rotate_interleaved}


class RopeAngles:
    """Computes cos and sin of positions."""

    def __init__(self, spec: RopeSpec, *, max_model_len: int, device: torch.device) -> None:
        frequencies, self._scale = rope_frequencies(spec, max_model_len=max_model_len)
        self._frequencies = frequencies.to(device)
        self._angles = kernels_for(device).rope_angles

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [T, 1, dim / 2] at positions [T]."""
        return self._angles(positions, self._frequencies, self._scale)


def build_rotation(spec: RopeSpec, head_dim: int) -> Rotate:
    """The rotation of heads; values beyond the first ``spec.dim`` pass unchanged."""
    rotate = _ROTATIONS[spec.style]
    if spec.dim == head_dim:
        return rotate

    def rotate_first_values(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned = rotate(x[..., : spec.dim], cos, sin)
        return torch.cat((turned, x[..., spec.dim :]), dim=-1)

    return rotate_first_values


def rope_frequencies(spec: RopeSpec, *, max_model_len: int) -> tuple[Tensor, float]:
    """(radians per position of each pair [dim / 2], the factor of cos and sin)."""
    if spec.scaling is None:
        return _plain(spec.dim, spec.theta), 1.0
    return _SCALINGS[type(spec.scaling)](spec, spec.scaling, max_model_len)


def _plain(dim: int, theta: float) -> Tensor:
    """Su et al. 2021 (arXiv:2104.09864)."""
    return 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)


def _linear(spec: RopeSpec, scaling: LinearScaling, max_model_len: int) -> tuple[Tensor, float]:
    """Chen et al. 2023 (arXiv:2306.15595)."""
    return _plain(spec.dim, spec.theta) / scaling.factor, 1.0


def _dynamic(spec: RopeSpec, scaling: DynamicScaling, max_model_len: int) -> tuple[Tensor, float]:
    """NTK-aware base (Peng et al. 2023, arXiv:2309.00071, section 3.1).

    The paper's base grows with the current length, which would turn keys that are cached already.
    Here it is fixed by the longest length that the engine admits: exact there, and exact
    everywhere while that is within the trained length.
    """
    length = max(max_model_len, scaling.original_max_positions)
    stretch = scaling.factor * length / scaling.original_max_positions - (scaling.factor - 1)
    return _plain(spec.dim, spec.theta * _ntk(spec, stretch)), 1.0


def _qwen(spec: RopeSpec, scaling: QwenScaling, max_model_len: int) -> tuple[Tensor, float]:
    """Qwen-1's NTK-aware base in steps; fixed by the longest length, as in `_dynamic`."""
    length = max(max_model_len, scaling.original_max_positions)
    doublings = math.ceil(math.log2(length / scaling.original_max_positions) + 1)
    return _plain(spec.dim, spec.theta * _ntk(spec, 2**doublings - 1)), 1.0


def _ntk(spec: RopeSpec, stretch: float) -> float:
    """The factor of the base by which the slowest pair's wavelength grows ``stretch`` times."""
    if spec.dim == 2:
        return 1.0  # the only pair is the slowest, and its frequency does not depend on the base
    return stretch ** (spec.dim / (spec.dim - 2))


def _longrope(spec: RopeSpec, scaling: LongRopeScaling, max_model_len: int) -> tuple[Tensor, float]:
    """Ding et al. 2024 (arXiv:2402.13753); the longest length decides which factors are used."""
    is_long = max_model_len > scaling.original_max_positions
    factors = torch.tensor(scaling.long if is_long else scaling.short, dtype=torch.float32)
    return _plain(spec.dim, spec.theta) / factors, (
        scaling.long_attention_factor if is_long else scaling.short_attention_factor
    )


def _llama3(spec: RopeSpec, scaling: Llama3Scaling, max_model_len: int) -> tuple[Tensor, float]:
    """As Llama 3.1's reference code (meta-llama/llama-models, models/llama3, apply_scaling)."""
    frequencies = _plain(spec.dim, spec.theta)
    # The number of turns of a pair over the trained length decides between the two regimes.
    turns = scaling.original_max_positions * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies * (keep + (1 - keep) / scaling.factor), 1.0


def _yarn(spec: RopeSpec, scaling: YarnScaling, max_model_len: int) -> tuple[Tensor, float]:
    """Peng et al. 2023 (arXiv:2309.00071), section 3.2, and 3.4 for the temperature."""
    frequencies = _plain(spec.dim, spec.theta)

    def pair_that_turns(turns: float) -> float:
        """The (fractional) pair that turns this often over the trained length."""
        wavelengths = scaling.original_max_positions / (turns * 2 * math.pi)
        return spec.dim * math.log(wavelengths) / (2 * math.log(spec.theta))

    low, high = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, spec.dim - 1)
    pairs = torch.arange(spec.dim // 2, dtype=torch.float32)
    width = high - low or 0.001  # negative where no pair turns once: then all frequencies are kept
    keep = 1 - ((pairs - low) / width).clamp(0, 1)
    return frequencies * (keep + (1 - keep) / scaling.factor), scaling.attention_factor


_SCALINGS: dict[type[RopeScaling], Callable[..., tuple[Tensor, float]]] = {
    LinearScaling: _linear,
    DynamicScaling: _dynamic,
    Llama3Scaling: _llama3,
    YarnScaling: _yarn,
    LongRopeScaling: _longrope,
    QwenScaling: _qwen,
}
