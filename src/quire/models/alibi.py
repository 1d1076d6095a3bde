"""The slopes of ALiBi (Press et al. 2021, arXiv:2108.12409, section 3). Imports no torch."""

from __future__ import annotations

from quire.errors import UnsupportedModelError
from quire.layers.spec import AlibiSpec


def alibi(num_heads: int, *, max_bias: float = 8.0, scale: float = 1.0) -> AlibiSpec:
    """Slopes for any number of heads; ``scale`` multiplies all of them.

    For a power of two n they are 2^(-max_bias i / n), i = 1..n. Other numbers take those of the
    next lower power of two, then every second one of the next higher.
    """
    if num_heads < 1:
        raise UnsupportedModelError(
            f"the config has {num_heads} attention heads; it must have at least one"
        )
    lower = 1 << (num_heads.bit_length() - 1)
    slopes = [2.0 ** (-max_bias * i / lower) for i in range(1, lower + 1)]
    between = [2.0 ** (-max_bias * (2 * i - 1) / (2 * lower)) for i in range(1, lower + 1)]
    return AlibiSpec(slopes=tuple(scale * slope for slope in (slopes + between)[:num_heads]))
