"""Layer groups and what a block costs."""

from __future__ import annotations

from quire.kv_layout import KVLayout, LayerKV


def layer(window: int | None = None, heads: int = 2) -> LayerKV:
    return LayerKV(num_kv_heads=heads, head_dim=8, window=window)


def test_uniform_layers_form_one_group() -> None:
    layout = KVLayout.of((layer(),) * 6)
    assert [group.layers for group in layout.groups] == [(0, 1, 2, 3, 4, 5)]
    assert len(layout.tensors) == 6
    assert layout.bytes_per_block(16, 2) == 6 * 2 * 2 * 8 * 16 * 2
    assert layout.bytes_per_token(2) == 6 * 2 * 2 * 8 * 2


def test_windowed_layers_share_memory_with_full_ones() -> None:
    """Five windowed layers to one full layer, as in Gemma 3: groups of equal size, so that a block
    freed by a window serves any group."""
    layout = KVLayout.of(tuple(layer(None if i % 6 == 5 else 512) for i in range(12)))
    assert sorted(len(group.layers) for group in layout.groups) == [2] * 6
    assert [group.window for group in layout.groups].count(None) == 1
    assert len(layout.tensors) == 2
    assert layout.bytes_per_block(16, 2) == 2 * 2 * 2 * 8 * 16 * 2
    assert sorted(index for group in layout.groups for index in group.layers) == list(range(12))


def test_layers_of_one_group_never_share_a_tensor() -> None:
    layout = KVLayout.of(tuple(layer(None if i % 3 else 64) for i in range(7)))
    for group in layout.groups:
        places = [layout.tensor_of_layer[index] for index in group.layers]
        assert len(set(places)) == len(places)


def test_layers_of_different_shape_keep_tensors_of_their_own() -> None:
    layout = KVLayout.of((layer(heads=2), layer(heads=4), layer(heads=2)))
    assert layout.tensor_of_layer == (0, 1, 2)
    assert [kv.num_kv_heads for kv in layout.tensors] == [2, 4, 2]
    assert layout.group_of_layer == (0, 0, 0)
