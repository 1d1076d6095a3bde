"""Frequencies and rotations equal the formulas' other implementation, and their definition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from quire.kernels.reference.rope import rotate_half, rotate_interleaved
from quire.layers.rope import RopeAngles, build_rotation, rope_frequencies
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

_LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_ORIGINAL = {"original_max_position_embeddings": 512}
_SHORT = tuple(1.0 + 0.1 * pair for pair in range(32))
_LONG = tuple(1.0 + pair for pair in range(32))


@pytest.mark.parametrize(
    ("scaling", "params"),
    [
        (LinearScaling(factor=4.0), {"rope_type": "linear", "factor": 4.0}),
        (
            DynamicScaling(factor=4.0, original_max_positions=2048),
            {"rope_type": "dynamic", "factor": 4.0},
        ),
        (
            Llama3Scaling(**_LLAMA3, original_max_positions=512),
            {"rope_type": "llama3", **_LLAMA3, **_ORIGINAL},
        ),
        (
            YarnScaling(
                factor=4.0, original_max_positions=512, attention_factor=0.1 * math.log(4) + 1
            ),
            {"rope_type": "yarn", "factor": 4.0, **_ORIGINAL},
        ),
        (
            YarnScaling(
                factor=40.0,
                original_max_positions=512,
                attention_factor=1.5,
                beta_fast=16.0,
                beta_slow=2.0,
                truncate=False,
            ),
            {
                "rope_type": "yarn",
                "factor": 40.0,
                "attention_factor": 1.5,
                "beta_fast": 16.0,
                "beta_slow": 2.0,
                "truncate": False,
                **_ORIGINAL,
            },
        ),
        (
            LongRopeScaling(
                short=_SHORT,
                long=_LONG,
                original_max_positions=512,
                short_attention_factor=0.5,
                long_attention_factor=math.sqrt(1 + math.log(2048 / 512) / math.log(512)),
            ),
            {"rope_type": "longrope", "short_factor": _SHORT, "long_factor": _LONG, **_ORIGINAL},
        ),
    ],
    ids=["linear", "dynamic", "llama3", "yarn", "yarn-all-options", "longrope"],
)
def test_scaled_frequencies_equal_transformers(
    scaling: RopeScaling, params: dict[str, Any]
) -> None:
    max_model_len = 5000
    config = LlamaConfig(
        hidden_size=256,
        num_attention_heads=4,
        max_position_embeddings=2048,
        rope_parameters={"rope_theta": 50000.0, **params},
    )
    expected, expected_scale = ROPE_INIT_FUNCTIONS[params["rope_type"]](
        config, torch.device("cpu"), seq_len=max_model_len
    )
    spec = RopeSpec(dim=64, theta=50000.0, scaling=scaling)
    frequencies, scale = rope_frequencies(spec, max_model_len=max_model_len)
    torch.testing.assert_close(frequencies, expected, rtol=1e-6, atol=0)
    assert scale == pytest.approx(expected_scale)


def test_dynamic_scaling_leaves_lengths_within_the_trained_one_alone() -> None:
    scaling = DynamicScaling(factor=4.0, original_max_positions=2048)
    scaled, _ = rope_frequencies(
        RopeSpec(dim=16, theta=10000.0, scaling=scaling), max_model_len=2048
    )
    plain, _ = rope_frequencies(RopeSpec(dim=16, theta=10000.0), max_model_len=2048)
    torch.testing.assert_close(scaled, plain, rtol=0, atol=0)


@pytest.mark.parametrize(
    "scaling",
    [DynamicScaling(factor=4.0, original_max_positions=8), QwenScaling(original_max_positions=8)],
)
def test_single_pair_turns_alike_at_any_base(scaling: RopeScaling) -> None:
    spec = RopeSpec(dim=2, theta=100.0, scaling=scaling)
    assert rope_frequencies(spec, max_model_len=64)[0].tolist() == [1.0]


def test_longrope_is_short_within_the_trained_length() -> None:
    scaling = LongRopeScaling(
        short=(1.5, 3.0),
        long=(9.0, 9.0),
        original_max_positions=512,
        short_attention_factor=1.25,
        long_attention_factor=2.0,
    )
    spec = RopeSpec(dim=4, theta=100.0, scaling=scaling)
    frequencies, scale = rope_frequencies(spec, max_model_len=512)
    torch.testing.assert_close(frequencies, torch.tensor([1 / 1.5, 0.1 / 3.0]))
    assert scale == 1.25
    _, scale = rope_frequencies(spec, max_model_len=513)
    assert scale == 2.0


@pytest.mark.parametrize(
    ("max_model_len", "alpha"), [(100, 1), (512, 1), (513, 3), (1024, 3), (1025, 7), (4096, 15)]
)
def test_qwens_base_grows_in_steps(max_model_len: int, alpha: int) -> None:
    spec = RopeSpec(dim=16, theta=10000.0, scaling=QwenScaling(original_max_positions=512))
    base = 10000.0 * alpha ** (16 / 14)
    expected = torch.tensor([base ** (-2 * pair / 16) for pair in range(8)])
    frequencies, scale = rope_frequencies(spec, max_model_len=max_model_len)
    torch.testing.assert_close(frequencies, expected)
    assert scale == 1.0


@pytest.mark.parametrize("style", ["half", "interleaved"])
def test_rotation_turns_each_pair_by_its_angle(style: Any) -> None:
    spec = RopeSpec(dim=6, theta=100.0, style=style)
    positions = torch.tensor([0, 1, 5])
    x = torch.randn(3, 2, 6, generator=torch.Generator().manual_seed(0))
    cos, sin = RopeAngles(spec, max_model_len=8, device=torch.device("cpu")).at(positions)
    turned = build_rotation(spec, 6)(x, cos, sin)
    for token, position in enumerate(positions.tolist()):
        for pair in range(3):
            first, second = (pair, pair + 3) if style == "half" else (2 * pair, 2 * pair + 1)
            angle = position * 100.0 ** (-2 * pair / 6)
            for head in range(2):
                a, b = float(x[token, head, first]), float(x[token, head, second])
                got = turned[token, head, [first, second]].tolist()
                assert got[0] == pytest.approx(a * math.cos(angle) - b * math.sin(angle), abs=1e-6)
                assert got[1] == pytest.approx(b * math.cos(angle) + a * math.sin(angle), abs=1e-6)


def test_partial_rotation_passes_the_rest_of_a_head() -> None:
    spec = RopeSpec(dim=4, theta=100.0)
    x = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(0))
    cos, sin = RopeAngles(spec, max_model_len=8, device=torch.device("cpu")).at(
        torch.tensor([3, 4])
    )
    turned = build_rotation(spec, 10)(x, cos, sin)
    torch.testing.assert_close(turned[..., 4:], x[..., 4:], rtol=0, atol=0)
    torch.testing.assert_close(turned[..., :4], rotate_half(x[..., :4], cos, sin))


def test_rotation_keeps_the_dtype() -> None:
    x = torch.randn(2, 3, 4).bfloat16()
    cos, sin = torch.ones(2, 1, 2), torch.zeros(2, 1, 2)
    for rotate in (rotate_half, rotate_interleaved):
        assert rotate(x, cos, sin).dtype == torch.bfloat16
        assert torch.equal(rotate(x, cos, sin), x)
