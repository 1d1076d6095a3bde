"""Programmatic dependent launch: a kernel begins while the one before it in the stream ends.

What a kernel owes in return, whichever kernels surround it:
* every program calls `await_inputs` before it reads what any kernel may have written, and before it
  writes anything at all (the kernel before may still be reading there);
* only what no kernel writes, such as weights, may be read earlier, and should be: that is the gain.

(A kernel behind one that calls `await_then_release` may read more: `moe_lines` and
`cuda/decode_attention.cu` have those that do.)

The kernel after is let go at once too, so a chain of such kernels reads weights without a pause.
Knows nothing of what the kernels compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypeVar

import torch
import triton
import triton.language as tl

from quire.kernels import hopper
from quire.kernels.cuda import availability
from quire.kernels.rehearsal import is_rehearsal

Tile = TypeVar("Tile")


@triton.jit
def await_inputs(DEPENDENT: tl.constexpr):
    """Let the next kernel begin; go on when the one before has ended and its writes are seen."""
    if DEPENDENT:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


@triton.jit
def await_then_release(DEPENDENT: tl.constexpr):
    """`await_inputs`, but all kernels behind may read what this one may, before they wait."""
    if DEPENDENT:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


@lru_cache
def shared_memory() -> int:
    """Bytes that a program may use; of a GPU to come where there is none."""
    if triton.knobs.runtime.interpret or not torch.cuda.is_available():
        return hopper.SHARED_BYTES
    device = torch.cuda.current_device()
    properties = triton.runtime.driver.active.utils.get_device_properties(device)
    return int(properties["max_shared_mem"])


def first_fitting(tiles: Iterable[Tile], shared_bytes: Callable[[Tile], int]) -> Tile:
    """The first that needs no more memory than a program may use; if there is none, the last."""
    room = shared_memory()
    for tile in tiles:
        if shared_bytes(tile) <= room:
            break
    return tile


@lru_cache
def dependent_launch() -> dict[str, bool]:
    """What a kernel that calls `await_inputs` is launched with on this machine."""
    if triton.knobs.runtime.interpret or not torch.cuda.is_available():
        return {"DEPENDENT": False}
    if torch.cuda.get_device_capability() < hopper.CAPABILITY:
        return {"DEPENDENT": False}
    return {"DEPENDENT": True, "launch_pdl": True}


def prefer_cache(kernel: Any) -> None:
    """Give a kernel that was launched all cache that there is, from its next launch on.

    What is loaded into registers needs lines of the cache while it is on its way, and attention and
    the products of many lines leave few. To take them back costs some microseconds after such a
    kernel, and nothing after others.
    """
    if not (triton.knobs.runtime.interpret or is_rehearsal() or availability.why_not_here()):
        from quire.kernels.cuda.launch import prefer_cache

        prefer_cache(kernel.function)
