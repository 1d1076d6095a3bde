"""Compiles the kernels of mixtures of experts for a Hopper GPU, which needs none: a script for a
process of its own, since the tests' process interprets kernels."""

from __future__ import annotations

import re
import subprocess
import tempfile
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from quire.kernels.triton import moe, moe_lines, moe_routing, moe_tiles
from quire.kernels.triton.moe_gating import GATINGS

HOPPER = GPUTarget("cuda", 90, 32)
FLOATS = {"weights", "shares"}
INTEGERS = {"tokens", "places", "ends", "tiles", "experts"}
MODEL = {"SIZE": 768, "H": 2048}  # of Qwen3-30B-A3B, and:
TOP_K = 8


def compile_kernel(
    kernel: Any, warps: int = 4, stages: int = 3, *, reads_first: int = 0, **constants: Any
) -> str:
    """The kernel's PTX; it must wait for the one before it, write nothing before, read at least
    ``reads_first`` times if it reads at all, and keep all values in registers."""
    constants["DEPENDENT"] = True
    names = list(enumerate(kernel.arg_names))
    signature = {name: type_of(name, constants) for _, name in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in names if signature[name][0] == "*"}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": warps, "num_stages": stages, "launch_pdl": True}
    compiled = triton.compile(source, target=HOPPER, options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        used = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    assert re.search(r"STACK:0 .*LOCAL:0", used), f"{kernel} {constants} spills: {used}"
    ptx = str(compiled.asm["ptx"])
    before, _ = ptx.split("griddepcontrol.wait")
    assert "st.global" not in before, f"{kernel} writes before it waits"
    reads = before.count("ld.global")
    assert reads >= reads_first, f"{kernel} reads its weight after it waited"
    assert reads_first or not reads, f"{kernel} reads before it waits"
    return ptx


def type_of(name: str, constants: dict[str, Any]) -> str:
    if name in constants:
        return "constexpr"
    if name.startswith("num_"):
        return "i32"
    return "*fp32" if name in FLOATS else "*i32" if name in INTEGERS else "*bf16"


def main() -> None:
    compile_kernel(
        moe_routing._softmax_top_k_kernel, warps=1, E=128, E_PAD=128, TOP_K=TOP_K, K_PAD=8,
        RENORMALISES=True,
    )  # fmt: skip
    for scan in (moe_routing._FEW_SCAN, moe_routing._MANY_SCAN):
        compile_kernel(
            moe_routing._sort_kernel, warps=scan // 512, TOP_K=TOP_K, BLOCK_M=16, SCAN=scan,
            TILES=32,
        )  # fmt: skip
    for kind in range(len(GATINGS)):
        compile_gate_up(kind == GATINGS.index("swiglu_oss"), kind)
    for has_bias in (False, True):
        compile_down(has_bias)
    compile_kernel(moe_tiles._add_sums_kernel, TOP_K=TOP_K, H=2048, K_PAD=8, BLOCK=1024)


def compile_gate_up(has_bias: bool, kind: int) -> None:
    compile_kernel(
        moe_lines._gate_up_lines_kernel, KIND=kind, ROWS=moe_lines._GATE_UP_ROWS,
        STEP=moe_lines._GATE_UP_STEP, TOP_K=TOP_K, HAS_BIAS=has_bias, **MODEL,
    )  # fmt: skip
    for width in (16, 128):
        compile_tiles(
            moe_tiles._gate_up_tiles_kernel, moe._GATE_UP[width], KIND=kind, HAS_BIAS=has_bias
        )


def compile_down(has_bias: bool) -> None:
    rows = moe_lines._DOWN_ROWS
    compile_kernel(
        moe_lines._down_lines_kernel, reads_first=10, K_PAD=8, ROWS=rows, TOP_K=TOP_K,
        STEP=moe_lines._DOWN_VALUES // (8 * rows), HAS_BIAS=has_bias, **MODEL,
    )  # fmt: skip
    for width in (16, 128):
        compile_tiles(moe_tiles._down_tiles_kernel, moe._DOWN[width], HAS_BIAS=has_bias)


def compile_tiles(kernel: Any, tile: moe_tiles.Tile, **constants: Any) -> None:
    ptx = compile_kernel(
        kernel, tile.num_warps, tile.num_stages, BLOCK_M=tile.block_m, BLOCK_N=tile.block_n,
        BLOCK_K=tile.block_k, GROUP=8, PRECISION="tf32", **MODEL, **constants,
    )  # fmt: skip
    assert "wgmma" in ptx, "products need Hopper's matrix instructions"
    assert "cp.async.cg" in ptx, "reads must run ahead of the matrix unit"


if __name__ == "__main__":
    main()
