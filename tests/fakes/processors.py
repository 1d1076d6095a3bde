"""Logits processors that requests may name."""

from __future__ import annotations

from torch import Tensor

NUMBER = 3


def favour_four(output_token_ids: list[int], logits: Tensor) -> Tensor:
    logits[4] += 100.0
    return logits


class Favour:
    """Makes one token likelier."""

    def __init__(self, token: int, bias: float = 100.0) -> None:
        self.token = token
        self.bias = bias

    def __call__(
        self, prompt_token_ids: list[int], output_token_ids: list[int], logits: Tensor
    ) -> Tensor:
        logits[self.token] += self.bias
        return logits


def make_nothing() -> None:
    """Not what a factory should do."""


def broken(output_token_ids: list[int], logits: Tensor) -> Tensor:
    raise RuntimeError("my own mistake")
