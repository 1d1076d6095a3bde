"""The last part of a decoder: hidden vectors to logits."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from quire.kernels.selection import BestToken, best_token
from quire.layers.embedding import Embedding
from quire.layers.linear import Linear, PlainProduct, Product, fastest_product
from quire.layers.spec import HeadSpec
from quire.weights.reader import TensorReader


class Head:
    """One product, then the scaling and capping that the spec asks for, in float32."""

    def __init__(self, spec: HeadSpec) -> None:
        self._spec = spec
        self._finish = _finish(spec)
        self._down: Callable[[Tensor], Tensor] = lambda hidden: hidden
        self._product: Product
        self._best: BestToken | None = None
        self.copied_bytes = 0  # of a tied weight that had to be copied to another layout

    def load(self, reader: TensorReader, prefix: str, embedding: Embedding) -> None:
        spec = self._spec
        if spec.inner_size is not None:
            down = Linear(spec.hidden_size, {"down": spec.inner_size}, bias=False)
            down.load(reader, prefix)
            self._down = down
        shape = (spec.vocab_size, spec.inner_size or spec.hidden_size)
        weight = embedding.weight if spec.tied else reader.read(f"{prefix}.weight", shape)
        if spec.unit_rows:
            weight = F.normalize(weight.float()).to(weight.dtype)
        bias = reader.read(f"{prefix}.bias", (spec.vocab_size,)) if spec.bias else None
        self._product = fastest_product(weight, bias)
        is_ordered = bias is None and spec.scale > 0 and spec.soft_cap is None  # as the product
        self._best = best_token(weight) if is_ordered else None
        is_copy = spec.tied and not isinstance(self._product, PlainProduct)
        self.copied_bytes = weight.nbytes if is_copy else 0

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits [S, V] of hidden [S, E], in its dtype or in float32."""
        return self._finish(self._product(self._down(hidden)))

    def best(self, hidden: Tensor) -> Tensor | None:
        """The token of the largest logit [S] int64 of hidden [S, E], of equal ones the first; None
        where finding it takes the logits themselves."""
        if self._best is None or not self._best.suits(len(hidden)):
            return None
        return self._best(self._down(hidden))


def _finish(spec: HeadSpec) -> Callable[[Tensor], Tensor]:
    scale, cap = spec.scale, spec.soft_cap
    if cap is not None:
        return lambda logits: (logits.float() * (scale / cap)).tanh_().mul_(cap)
    if scale != 1.0:
        return lambda logits: logits.float() * scale
    return lambda logits: logits
