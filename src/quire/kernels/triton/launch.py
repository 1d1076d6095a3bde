"""Programmatic dependent launch: a kernel begins while the one before it in the stream ends.

The rules for every kernel, whichever kernels surround it:
* every program calls `await_inputs` before it reads what any kernel may have written, and before it
  writes anything at all (the kernel before may still be reading there);
* only what no kernel writes, such as weights, may be read earlier, and should be: that is the gain.

(A kernel behind one that calls `await_then_release` may read more before it waits; `moe_lines` and
`cuda/decode_attention.cu` do so.)

`await_inputs` also lets the next kernel begin at once, so a chain of such kernels reads weights
without a pause. Knows nothing of what the kernels compute.
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
    """Let the next kernel begin; wait until the one before has ended and its writes are visible."""
    if DEPENDENT:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


@triton.jit
def await_then_release(DEPENDENT: tl.constexpr):
    """`await_inputs` in the other order: later kernels may read before they wait whatever this one
    may read after, since they begin only when all kernels before this one have ended."""
    if DEPENDENT:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


@lru_cache
def shared_memory() -> int:
    """Bytes of shared memory that a program may use; a Hopper's where there is no GPU."""
    if triton.knobs.runtime.interpret or not torch.cuda.is_available():
        return hopper.SHARED_BYTES
    device = torch.cuda.current_device()
    properties = triton.runtime.driver.active.utils.get_device_properties(device)
    return int(properties["max_shared_mem"])


def first_fitting(tiles: Iterable[Tile], shared_bytes: Callable[[Tile], int]) -> Tile:
    """The first tile that needs no more shared memory than there is; the last if none does."""
    room = shared_memory()
    for tile in tiles:
        if shared_bytes(tile) <= room:
            break
    return tile


@lru_cache
def dependent_launch() -> dict[str, bool]:
    """Launch options, on this machine, of a kernel that calls `await_inputs`."""
    if triton.knobs.runtime.interpret or not torch.cuda.is_available():
        return {"DEPENDENT": False}
    if torch.cuda.get_device_capability() < hopper.CAPABILITY:
        return {"DEPENDENT": False}
    return {"DEPENDENT": True, "launch_pdl": True}


def prefer_cache(kernel: Any) -> None:
    """Leave a kernel that was launched as much L1 cache as possible, from its next launch on.

    Loads into registers need cache lines while they are under way, and attention and the products
    of many lines leave few. Taking the cache back costs some microseconds after such a kernel, and
    nothing after others.
    """
    if not (triton.knobs.runtime.interpret or is_rehearsal() or availability.why_not_here()):
        from quire.kernels.cuda.launch import prefer_cache

        prefer_cache(kernel.function)
