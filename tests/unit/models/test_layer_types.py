"""Windows layer by layer: what configs list, what they leave to a pattern, and the switch."""

from __future__ import annotations

from typing import Any

import pytest

from quire.errors import UnsupportedModelError
from quire.models.hf_config import HFConfig
from quire.models.layer_types import (
    FULL,
    SLIDING,
    every_nth_full,
    list_by_layer,
    switched_window,
    upper_windows,
    windows_by_layer,
)


def _hf(**keys: Any) -> HFConfig:
    return HFConfig({"num_hidden_layers": 4, **keys}, "SomeForCausalLM")


def test_listed_types_come_before_the_pattern() -> None:
    pattern = every_nth_full(6, 2)
    assert windows_by_layer(_hf(), 8, pattern) == [8, None, 8, None]
    listed = _hf(layer_types=[FULL, FULL, SLIDING, FULL])
    assert windows_by_layer(listed, 8, pattern) == [None, None, 8, None]


@pytest.mark.parametrize(
    ("keys", "window"),
    [
        ({"sliding_window": 9}, None),
        ({"sliding_window": 9, "use_sliding_window": True}, 9),
        ({"use_sliding_window": True}, 4096),
        ({"sliding_window": None, "use_sliding_window": True}, None),
    ],
)
def test_windows_are_off_until_switched_on(keys: dict[str, Any], window: int | None) -> None:
    assert switched_window(_hf(**keys)) == window


def test_upper_windows_begin_where_the_config_says() -> None:
    on = {"use_sliding_window": True, "sliding_window": 9}
    assert upper_windows(_hf(max_window_layers=3, **on)) == [None, None, None, 9]
    assert upper_windows(_hf(**on)) == [None] * 4
    assert upper_windows(_hf(max_window_layers=0)) == [None] * 4


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ([FULL] * 3, "'layer_types' of SomeForCausalLM has 3 entries and num_hidden_layers is 4"),
        ([FULL, "linear_attention", FULL, FULL], r"among its entries are \['linear_attention'\]"),
    ],
)
def test_types_that_do_not_fit_are_refused(kinds: list[str], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        windows_by_layer(_hf(layer_types=kinds), 8, [])


def test_any_list_has_an_entry_for_each_layer() -> None:
    assert list_by_layer(_hf(), "no_rope_layers") is None
    assert list_by_layer(_hf(no_rope_layers=[1, 1, 1, 0]), "no_rope_layers") == [1, 1, 1, 0]
    with pytest.raises(UnsupportedModelError, match="'no_rope_layers' of SomeForCausalLM has 1 "):
        list_by_layer(_hf(no_rope_layers=[1]), "no_rope_layers")
