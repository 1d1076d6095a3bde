"""A dispatch mode under which device values must not reach the host: what a GPU graph demands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Each waits for the device, or makes a shape from its values.
_FORBIDDEN = {
    "aten::_local_scalar_dense": "a value is read on the host (.item(), bool(), float(), ...)",
    "aten::nonzero": "a shape depends on values (nonzero, where with one argument)",
    "aten::masked_select": "a shape depends on values (masked_select)",
    "aten::unique_dim": "a shape depends on values (unique)",
    "aten::_unique2": "a shape depends on values (unique)",
    "aten::repeat_interleave": "a shape depends on values (repeat_interleave)",
    "aten::equal": "a value is read on the host (torch.equal)",
}
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class NoSync(TorchDispatchMode):
    """Raises AssertionError at the operation that would wait for the device.

    On a CPU ``tolist()`` and ``numpy()`` pass unseen, as they dispatch nothing.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func._schema.name
        assert name not in _FORBIDDEN, f"{name}: {_FORBIDDEN[name]}"
        if name in _INDEXING:
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{name}: a shape depends on values (boolean index)"
        return func(*args, **(kwargs or {}))


def assert_no_sync(function: Callable[[], Any]) -> Any:
    """The result of ``function``, which must not wait for the device."""
    with NoSync():
        return function()
