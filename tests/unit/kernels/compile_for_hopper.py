"""Compiles every Triton kernel for a Hopper GPU, which needs none: a script for a process of its
own, since the tests' process interprets kernels."""

from __future__ import annotations

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from quire.kernels.triton import activation, argmax, bitmask, gemv, norm, rope

HOPPER = GPUTarget("cuda", 90, 32)
FLOATS = {"slopes", "parts", "part_stats", "cos", "sin", "best_values", "frequencies"}
INTEGERS = {
    "block_table",
    "query_start",
    "seq_lens",
    "counters",
    "best_places",
    "lines_ptr",
    "masks_ptr",
}
SCALARS = {"scale": "fp32", "eps": "fp32", "q_eps": "fp32", "k_eps": "fp32"}
NUMBERS = {"num_rows", "table_stride", "q_stride", "x_stride", "qkv_stride", "stride", "num_tokens"}
NUMBERS |= {"vocab_size", "logits_stride", "masks_stride"}


def compile_kernel(kernel: Any, *, stages: int = 3, cache: str = "bf16", **constants: Any) -> str:
    """The kernel's PTX; pointers are bf16 unless their name says otherwise."""
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name in NUMBERS or name in SCALARS:
            signature[name] = SCALARS.get(name, "i32")
        elif name in ("slots", "positions") or (name == "out" and kernel is argmax._argmax_kernel):
            signature[name] = "*i64"
        else:
            kind = "fp32" if name in FLOATS else "i32" if name in INTEGERS else "bf16"
            signature[name] = f"*{cache if name in ('k_cache', 'v_cache') else kind}"
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=HOPPER, options={"num_warps": 4, "num_stages": stages})
    return str(compiled.asm["ptx"])


def main() -> None:
    compile_small_kernels()


def compile_dependent(
    kernel: Any, *, reads_first: int = 0, waits_first: bool = False, **constants: Any
) -> None:
    """A kernel of a chain: it reads ``reads_first`` things and writes none before it waits;
    ``waits_first``: nor does it let the next one begin."""
    ptx = compile_kernel(kernel, DEPENDENT=True, **constants)
    before, after = ptx.split("griddepcontrol.wait")
    releases = "griddepcontrol.launch_dependents"
    assert (releases in before, releases in after) == (not waits_first, waits_first), f"{kernel}"
    assert before.count("ld.global") >= reads_first, f"{kernel} reads its weights after the wait"
    assert "st.global" not in before and "st.global" in after


def compile_small_kernels() -> None:
    for interleaved, normed, cache, largest in (
        (False, True, "bf16", 0.0),
        (True, False, "bf16", 0.0),
        (False, True, "fp8e4nv", 448.0),
        (False, False, "fp8e5", 57344.0),
    ):
        compile_dependent(
            rope._heads_kernel, H=16, K=8, D=128, HALF=64, HALF_PAD=64, PARTS=2,
            INTERLEAVED=interleaved, HAS_NORMS=normed, HEADS=8, LARGEST=largest, cache=cache,
        )  # fmt: skip
    # attention of a decode step reads what was written before this, and does not wait for it
    compile_dependent(
        rope._angles_kernel, reads_first=1, waits_first=True, HALF=64, HALF_PAD=64, TOKENS=4
    )
    compile_dependent(norm._rms_norm_kernel, reads_first=1, SIZE=1000, PADDED=1024)
    for bias in (False, True):
        compile_dependent(
            norm._layer_norm_kernel, SIZE=1000, PADDED=1024, HAS_WEIGHT=True, HAS_BIAS=bias
        )
    compile_kernel(bitmask._apply_bitmask, BLOCK=bitmask.BLOCK)
    compile_dependent(argmax._argmax_kernel, SIZE=151936, BLOCK=8192, CHUNKS=19, PADDED=32)
    line = {"N": 4096, "K": 1024, "PADDED": 1024, "HAS_BIAS": False, "BLOCK_N": 4}
    for norms, adds in ((True, False), (False, True)):
        compile_dependent(gemv._gemv_kernel, reads_first=4, NORMS=norms, ADDS=adds, **line)
    for kind in range(len(activation.NAMES)):
        compile_dependent(activation._gated_kernel, SIZE=3072, BLOCK=1024, KIND=kind)
        compile_dependent(gemv._gated_gemv_kernel, reads_first=8, NORMS=True, KIND=kind, **line)


if __name__ == "__main__":
    main()
