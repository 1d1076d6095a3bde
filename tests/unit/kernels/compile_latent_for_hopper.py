"""Compiles the kernel of latent attention for a Hopper GPU, which needs none: a script for a
process of its own, since the tests' process interprets kernels. With ``all`` it says what it
uses."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from quire.kernels.triton.attention_latent import LatentShape, _latent_kernel, latent_tile

HOPPER = GPUTarget("cuda", 90, 32)
TYPES = {"out": "*bf16", "q": "*bf16", "cache": "*bf16", "parts": "*fp32", "part_stats": "*fp32"}
NUMBERS = {"num_rows": "i32", "table_stride": "i32", "splits": "i32", "scale": "fp32"}
ALIGNED = {*TYPES, "counters"}
MOST_SPILLED = 160  # bytes of a thread: sums of 64 lines of 512 values are half of its registers
SHARED_BYTES = 227 << 10  # that a program of a Hopper GPU may have


def compile_latents(num_heads: int, is_decode: bool, is_mixed: bool = False) -> tuple[str, str]:
    """(PTX, what it uses) for the sizes of DeepSeek-V2 and V3."""
    shape = LatentShape(num_heads=num_heads, head_dim=576, value_dim=512, scale=0.1)
    tile = latent_tile(shape, torch.bfloat16, is_decode=is_decode)
    constants = {
        "NUM_HEADS": num_heads, "GROUP": tile.group, "V": 512, "D": 576,
        "V_PAD": shape.padded_values, "TAIL_PAD": shape.padded_tail, "BLOCK_SIZE": 64,
        "BLOCK_Q": tile.block_q, "BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n,
        "LEAST": tile.least, "IS_DECODE": is_decode, "IS_MIXED": is_mixed, "PRECISION": "tf32",
        "DEPENDENT": True,
    }  # fmt: skip
    names = _latent_kernel.arg_names
    signature = {
        name: "constexpr" if name in constants else {**TYPES, **NUMBERS}.get(name, "*i32")
        for name in names
    }
    attributes = {
        (place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name in ALIGNED
    }
    source = ASTSource(
        fn=_latent_kernel, signature=signature, constexprs=constants, attrs=attributes
    )
    options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages}
    compiled = triton.compile(source, target=HOPPER, options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        command = [tool, "-res-usage", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    used = re.search(r"REG:.*", done.stdout)
    assert used and compiled.metadata.shared <= SHARED_BYTES, (used, compiled.metadata.shared)
    return str(compiled.asm["ptx"]), f"{used[0]} DYNAMIC:{compiled.metadata.shared}"


def main() -> None:
    for num_heads in (16, 128):
        for is_decode in (True, False):
            ptx, used = compile_latents(num_heads, is_decode)
            if "all" in sys.argv:
                print(f"{num_heads} heads, {'decode' if is_decode else 'chunks'}: {used}")
            is_wide = not is_decode or num_heads > 16
            assert ("wgmma" in ptx) == is_wide, "many lines take Hopper's matrix instructions"
            spilled = re.search(r"STACK:(\d+)", used)
            assert spilled and int(spilled[1]) <= MOST_SPILLED, f"{num_heads} heads: {used}"


if __name__ == "__main__":
    main()
