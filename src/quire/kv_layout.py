"""Layer groups: which attention layers share a block table, and what a block costs.

Knows nothing about requests or tensors. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

NULL_BLOCK = 0  # fills block tables where there is no block: never allocated, never read unmasked


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerKV:
    """What one attention layer stores per token."""

    num_kv_heads: int
    head_dim: int
    window: int | None = None  # sliding window in tokens, the token itself included
    has_values: bool = True  # else values are part of the keys

    @property
    def planes(self) -> int:
        """Stored tensors per layer: keys and values, or keys only."""
        return 2 if self.has_values else 1

    @property
    def num_elements(self) -> int:
        """Elements that a token takes in this layer."""
        return self.planes * self.num_kv_heads * self.head_dim


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerGroup:
    """Layers that share a block table because they need the same tokens."""

    window: int | None
    layers: tuple[int, ...]  # attention layer indices


@dataclass(frozen=True, kw_only=True, slots=True)
class KVLayout:
    """How the attention layers of a model map to groups and blocks.

    Groups hold (nearly) equally many layers, so that one block of memory serves any group: the
    i-th layer of every group lives in the i-th physical tensor, under block ids from one pool.
    """

    layers: tuple[LayerKV, ...]
    groups: tuple[LayerGroup, ...]

    @classmethod
    def of(cls, layers: tuple[LayerKV, ...]) -> KVLayout:
        """Group ``layers`` by window; if all have one shape, split them into groups of equal size.

        Where shapes differ (DeciLM) every layer keeps a tensor of its own, so sizes do not matter.
        """
        by_window: dict[int | None, list[int]] = {}
        for index, layer in enumerate(layers):
            by_window.setdefault(layer.window, []).append(index)
        size = min(map(len, by_window.values())) if _have_one_shape(layers) else len(layers)
        groups = [
            LayerGroup(window=window, layers=tuple(members[start : start + size]))
            for window, members in by_window.items()
            for start in range(0, len(members), size)
        ]
        return cls(layers=layers, groups=tuple(groups))

    @property
    def group_of_layer(self) -> tuple[int, ...]:
        owner = {layer: index for index, group in enumerate(self.groups) for layer in group.layers}
        return tuple(owner[layer] for layer in range(len(self.layers)))

    @property
    def tensor_of_layer(self) -> tuple[int, ...]:
        """Per layer, the physical tensor it lives in."""
        if _have_one_shape(self.layers):
            place = {layer: i for group in self.groups for i, layer in enumerate(group.layers)}
            return tuple(place[layer] for layer in range(len(self.layers)))
        return tuple(range(len(self.layers)))

    @property
    def tensors(self) -> tuple[LayerKV, ...]:
        """The shape of each physical tensor."""
        shapes: dict[int, LayerKV] = {}
        for layer, tensor in zip(self.layers, self.tensor_of_layer, strict=True):
            shapes.setdefault(tensor, layer)
        return tuple(shapes[index] for index in range(len(shapes)))

    def bytes_per_block(self, block_size: int, element_size: int) -> int:
        """Bytes of one block in all physical tensors, keys and any values."""
        return sum(kv.num_elements for kv in self.tensors) * block_size * element_size

    def bytes_per_token(self, element_size: int) -> int:
        """Bytes of a token in all layers, while it is inside every window."""
        return sum(kv.num_elements for kv in self.layers) * element_size


def _have_one_shape(layers: tuple[LayerKV, ...]) -> bool:
    return len({(kv.planes, kv.num_kv_heads, kv.head_dim) for kv in layers}) == 1
