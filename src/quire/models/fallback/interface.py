"""Quire's hook in transformers' attention interface: every attention layer of a model calls it.

Registers two names. Under `PROBED` masks are described instead of built, and `probe.py` records how
each layer calls; under `PAGED` no masks are built, and a `PagedAttention` computes the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from quire.errors import UnsupportedModelError

PROBED = "quire_probed"
PAGED = "quire_paged"
OWN = "eager"  # transformers' reference implementation
_WHOLE = (slice(None), slice(0, None))


@dataclass(frozen=True, slots=True)
class WantedMask:
    """A mask that a model asked for, as a predicate of (batch, head, query, key)."""

    sees: Callable[[Tensor, Tensor, Tensor, Tensor], Any]

    def __getitem__(self, index: tuple[slice, ...]) -> WantedMask:
        """The mask itself; Gemma 4 slices it to the rows that are kept, which are all of them."""
        if any(one not in _WHOLE for one in index):
            raise UnsupportedModelError(f"a layer attends with part of its mask ({index})")
        return self


class Answerer(Protocol):
    """What the attention layers of one model call, in the order of a forward."""

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Any, options: Mapping[str, Any]
    ) -> Tensor:
        """query [1, H, T, D], key [1, K, T, D], value [1, K, T, D']; answers [1, T, H, D']."""
        ...


def register() -> None:
    """Register both names with transformers; may be called again."""
    AttentionInterface.register(PROBED, _call)
    AttentionInterface.register(PAGED, _call)
    AttentionMaskInterface.register(PROBED, _describe_mask)


def connect(model: PreTrainedModel, answerer: Answerer) -> None:
    """Let the attention layers of ``model`` call ``answerer``."""
    for module in model.modules():
        # On every module, since only a call shows which are attention layers. Set past
        # Module.__setattr__, so that it does not become part of the model's state.
        object.__setattr__(module, "quire_answerer", answerer)


@contextmanager
def implementation(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Run the block with ``model`` on the attention implementation ``name``."""
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


def _call(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    answerer: Answerer = module.quire_answerer
    return answerer.attend(query, key, value, attention_mask, options), None


def _describe_mask(*args: Any, **wanted: Any) -> WantedMask:
    return WantedMask(wanted["mask_function"])
