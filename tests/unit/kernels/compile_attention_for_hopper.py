"""Compiles the attention kernels for a Hopper GPU, which needs none: a script for a process of its
own, since the tests' process interprets kernels. With ``all`` it says what each kernel uses."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from quire.kernels.triton import attention, attention_prefix
from quire.kernels.triton.attention import AttentionShape, Tile

HOPPER = GPUTarget("cuda", 90, 32)
BFLOAT16 = {"out", "q", "keys", "values", "k_cache", "v_cache"}
FLOAT32 = {"parts", "part_stats", "prefix_parts", "prefix_stats", "slopes", "sinks"}
NUMBERS = {"num_rows", "table_stride", "q_stride", "splits", "prefix_splits"}
ALIGNED = BFLOAT16 | FLOAT32 | {"counters", "q_stride"}  # as a real launch finds them
SHAPE = AttentionShape(num_kv_heads=8, group=4, head_dim=128, scale=0.1)
MOST_STACK = 8  # bytes of a thread; Triton 3.7 keeps one value there, 3.9 none
HEADS = {
    "NUM_KV_HEADS": 8,
    "GROUP": 4,
    "D": 128,
    "D_PAD": 128,
    "PRECISION": "tf32",
    "DEPENDENT": True,
}


def compile_kernel(
    kernel: Any, tile: Tile, cache: str = "bf16", **constants: Any
) -> tuple[str, str]:
    """(PTX, what it uses: REG, STACK, SHARED, LOCAL)."""
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            kind = "constexpr"
        elif name in ("k_cache", "v_cache"):
            kind = f"*{cache}"
        elif name in BFLOAT16:
            kind = "*bf16"
        elif name in FLOAT32:
            kind = "*fp32"
        elif name == "scale":
            kind = "fp32"
        else:
            kind = "i32" if name in NUMBERS else "*i32"
        signature[name] = kind
    attributes = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if name in ALIGNED
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages}
    compiled = triton.compile(source, target=HOPPER, options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        done = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    used = re.search(r"REG:.*", done.stdout)
    assert used, done.stdout
    return str(compiled.asm["ptx"]), f"{used[0]} DYNAMIC:{compiled.metadata.shared}"


def compile_attention(
    is_decode: bool,
    *,
    splits: bool = False,
    prefix: bool = False,
    window: int = 0,
    block: int = 64,
    cap: float = 0.0,
    alibi: bool = False,
    sinks: bool = False,
    is_mixed: bool = False,
    cache: str = "bf16",
) -> tuple[str, str]:
    tile = attention.best_tile(SHAPE, torch.bfloat16, is_decode=is_decode, is_mixed=is_mixed)
    return compile_kernel(
        attention._attention_kernel, tile, cache, **HEADS,
        BLOCK_SIZE=block, BLOCK_Q=tile.block_q, BLOCK_M=tile.block_m, BLOCK_N=tile.block_n,
        HAS_SPLITS=splits, LEAST=tile.least, HAS_PREFIX=prefix, PREFIX_BLOCK_N=64,
        HAS_ORDER=is_decode and not is_mixed, HAS_TILES=is_mixed and not is_decode, WINDOW=window,
        SOFT_CAP=cap, HAS_ALIBI=alibi, HAS_SINKS=sinks, IS_DECODE=is_decode, IS_MIXED=is_mixed,
        HEADS_FIRST=tile.heads_first, WHOLE_FIRST=tile.whole_first and not window,
    )  # fmt: skip


def compile_prefix(block: int, cache: str = "bf16") -> tuple[str, str]:
    tile = attention_prefix.best_prefix_tile(SHAPE, torch.bfloat16)
    return compile_kernel(
        attention_prefix._prefix_kernel, tile, cache, **HEADS,
        BLOCK_SIZE=block, BLOCK_Q=tile.block_q, BLOCK_M=tile.block_m, BLOCK_N=tile.block_n,
        SOFT_CAP=0.0, HAS_ALIBI=False,
    )  # fmt: skip


def main() -> None:
    kernels: dict[str, tuple[str, str]] = {
        "decode": compile_attention(True),
        "decode, prefix": compile_attention(True, splits=True, prefix=True),
        "decode, options": compile_attention(
            True, splits=True, window=100, block=16, cap=30.0, alibi=True, sinks=True
        ),
        "decode, mixed, fp8": compile_attention(True, is_mixed=True, cache="fp8e4nv"),
        "chunks, mixed, split": compile_attention(False, splits=True, is_mixed=True),
        "chunks, options": compile_attention(False, window=100, block=16, alibi=True, sinks=True),
        "chunks, fp8": compile_attention(False, cache="fp8e5"),
        "prefix": compile_prefix(64),
        "prefix, small blocks, fp8": compile_prefix(16, "fp8e4nv"),
    }  # fmt: skip
    for name, (ptx, used) in kernels.items():
        if "all" in sys.argv:
            print(f"{name:24} {used}")
        is_wide = name.startswith(("chunks", "prefix"))
        assert ("wgmma" in ptx) == is_wide, f"{name}: many lines take Hopper's matrix instructions"
        stack = int(used.split("STACK:")[1].split()[0])
        assert stack <= MOST_STACK and "LOCAL:0" in used, f"{name} spills: {used}"


if __name__ == "__main__":
    main()
