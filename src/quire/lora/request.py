"""LoRARequest: which adapter a request wants. Knows nothing about the adapter's weights."""

from __future__ import annotations

from dataclasses import dataclass

from quire.sampling_limits import is_int


@dataclass(frozen=True, slots=True)
class LoRARequest:
    """An adapter by name, by its number of at least 1, and by the folder that holds it.

    The order of the fields is the one that users know. Requests with an adapter are refused for
    now, wherever they are made.
    """

    lora_name: str
    lora_int_id: int
    lora_path: str = ""
    base_model_name: str | None = None
    load_inplace: bool = False
    is_3d_lora_weight: bool = False

    def __post_init__(self) -> None:
        if not is_int(self.lora_int_id) or self.lora_int_id < 1:
            raise ValueError(
                f"lora_int_id must be an integer of at least 1, got {self.lora_int_id!r}; number "
                "your adapters from 1 on"
            )
