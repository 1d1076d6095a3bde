"""Compiles every Triton kernel for a Hopper GPU, which needs none: a script for a process of its
own, since the tests' process interprets kernels."""

from __future__ import annotations

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from quire.kernels.triton import activation, argmax, attention, gemv, norm, rope

HOPPER = GPUTarget("cuda", 90, 32)
FLOATS = {"slopes", "parts", "part_stats", "cos", "sin", "best_values"}
INTEGERS = {"block_table", "query_start", "seq_lens", "counters", "best_places"}
SCALARS = {"scale": "fp32", "eps": "fp32", "q_eps": "fp32", "k_eps": "fp32"}
NUMBERS = {"num_rows", "table_stride", "q_stride", "x_stride", "qkv_stride", "stride"}


def compile_kernel(kernel: Any, *, stages: int = 3, **constants: Any) -> str:
    """The kernel's PTX; pointers are bf16 unless their name says otherwise."""
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name in NUMBERS or name in SCALARS:
            signature[name] = SCALARS.get(name, "i32")
        elif name == "slots" or (name == "out" and kernel is argmax._argmax_kernel):
            signature[name] = "*i64"
        else:
            kind = "fp32" if name in FLOATS else "i32" if name in INTEGERS else "bf16"
            signature[name] = f"*{kind}"
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=HOPPER, options={"num_warps": 4, "num_stages": stages})
    return str(compiled.asm["ptx"])


def main() -> None:
    heads = {"NUM_KV_HEADS": 8, "GROUP": 4, "D": 128, "D_PAD": 128, "PRECISION": "tf32"}
    for is_decode, splits, window, block_size, cap, alibi in (
        (True, 1, 0, 64, 0.0, False),
        (True, 16, 0, 64, 0.0, False),
        (True, 4, 100, 16, 30.0, True),
        (False, 1, 0, 64, 0.0, False),
        (False, 1, 100, 16, 0.0, True),
    ):
        tile = {"BLOCK_Q": 1, "BLOCK_M": 16} if is_decode else {"BLOCK_Q": 16, "BLOCK_M": 64}
        options = {"SPLITS": splits, "WINDOW": window, "SOFT_CAP": cap, "HAS_ALIBI": alibi}
        ptx = compile_kernel(
            attention._attention_kernel, stages=2 if is_decode else 3, BLOCK_SIZE=block_size,
            BLOCK_N=64, IS_DECODE=is_decode, **heads, **tile, **options,
        )  # fmt: skip
        assert is_decode or "wgmma" in ptx, "prompts need Hopper's matrix instructions"
    for interleaved, normed in ((False, True), (True, False)):
        compile_kernel(
            rope._heads_kernel, H=16, K=8, D=128, D_PAD=128, ROTARY=128,
            INTERLEAVED=interleaved, HAS_NORMS=normed, HEADS=8,
        )  # fmt: skip
    for adds in (False, True):
        compile_kernel(norm._rms_norm_kernel, SIZE=1000, PADDED=1024, ADDS=adds)
        compile_kernel(
            norm._layer_norm_kernel, SIZE=1000, PADDED=1024, ADDS=adds,
            HAS_WEIGHT=True, HAS_BIAS=adds,
        )  # fmt: skip
    for kind in range(len(activation.NAMES)):
        compile_kernel(activation._gated_kernel, SIZE=3072, BLOCK=1024, KIND=kind)
    compile_kernel(argmax._argmax_kernel, SIZE=151936, BLOCK=8192, CHUNKS=19, PADDED=32)
    compile_kernel(gemv._gemv_kernel, N=4096, K=1024, HAS_BIAS=True, BLOCK_N=2, BLOCK_K=1024)


if __name__ == "__main__":
    main()
