"""The request for an adapter, as users of other engines write it."""

from __future__ import annotations

import pytest

import quire
from quire.lora.request import LoRARequest


def test_fields_come_in_their_known_order() -> None:
    request = LoRARequest("style", 3, "/adapters/style", "base", True, True)
    assert request == LoRARequest(
        lora_name="style",
        lora_int_id=3,
        lora_path="/adapters/style",
        base_model_name="base",
        load_inplace=True,
        is_3d_lora_weight=True,
    )
    assert LoRARequest("style", 3).lora_path == ""
    assert quire.LoRARequest is LoRARequest


@pytest.mark.parametrize("number", [0, -1, True, "1"])
def test_number_must_be_at_least_1(number: object) -> None:
    with pytest.raises(ValueError, match="lora_int_id must be an integer of at least 1"):
        LoRARequest("style", number)  # type: ignore[arg-type]
