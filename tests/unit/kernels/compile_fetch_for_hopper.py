"""Compiles the fetching of a step's inputs for a Hopper GPU, which needs none: a script for a
process of its own, since the tests' process interprets kernels."""

from __future__ import annotations

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from quire.kernels.triton.fetch import _LINE, _WORDS, _fetch_kernel


def main() -> None:
    constants = {
        "SLOT_WORDS": 4096, "NUM_SLOTS": 3, "LINE": _LINE, "WORDS": _WORDS, "DEPENDENT": True
    }  # fmt: skip
    names = _fetch_kernel.arg_names
    signature = {
        name: "constexpr" if name in constants else "i32" if name == "num_lines" else "*i32"
        for name in names
    }
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name in ("target", "slots")}
    source = ASTSource(fn=_fetch_kernel, signature=signature, constexprs=constants, attrs=aligned)
    compiled = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4, "launch_pdl": True}
    )
    ptx = str(compiled.asm["ptx"])
    assert "ld.global.cv.v4" in ptx, "the bus is read piecemeal, or what is read may be stale"


if __name__ == "__main__":
    main()
