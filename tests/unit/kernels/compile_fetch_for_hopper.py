"""Compiles the kernels that reach the host's memory for a Hopper GPU, which needs none: a script
for a process of its own, since the tests' process interprets kernels."""

from __future__ import annotations

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from quire.kernels.triton.deliver import _ROWS, _deliver_kernel
from quire.kernels.triton.fetch import _LINE, _WORDS, _fetch_kernel

HOPPER = GPUTarget("cuda", 90, 32)


def main() -> None:
    compile_fetch()
    compile_deliver()


def compile_fetch() -> None:
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
    options = {"num_warps": 4, "launch_pdl": True}
    compiled = triton.compile(source, target=HOPPER, options=options)
    ptx = str(compiled.asm["ptx"])
    assert "ld.volatile.global.v4" in ptx, "the bus is read piecemeal, or what is read may be stale"


def compile_deliver() -> None:
    constants = {"SLOT_WORDS": 256, "NUM_SLOTS": 3, "ROWS": _ROWS, "DEPENDENT": True}
    types = dict.fromkeys(("token_ids", "rows", "lengths"), "*i64")
    types |= dict.fromkeys(("num_rows", "width"), "i32")
    types |= dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, "*i32") for name in _deliver_kernel.arg_names}
    source = ASTSource(fn=_deliver_kernel, signature=signature, constexprs=constants)
    options = {"num_warps": 4, "launch_pdl": True}
    ptx = str(triton.compile(source, target=HOPPER, options=options).asm["ptx"])
    before, after = ptx.split("griddepcontrol.wait")
    assert "d.global" not in before and "st.global" not in before
    assert "st.global" in after


if __name__ == "__main__":
    main()
