"""Compiles the lookup of a step's tokens, and of its tiles, for a Hopper GPU, which needs none: a
script for a process of its own, since the tests' process interprets kernels."""

from __future__ import annotations

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from quire.kernels.triton.attention_tiles import _prompt_tiles_kernel
from quire.kernels.triton.lookup import _lookup_kernel

HOPPER = GPUTarget("cuda", 90, 32)

INT32 = {"seq_lens_out", "tables_out", "query_start", "token_ids", "tables"}
NUMBERS = {"num_rows", "num_tokens", "ids_width", "table_width", "max_rows"}


def main() -> None:
    for searches, groups in ((0, 1), (9, 1), (9, 3)):
        constants = {
            "BLOCK_SIZE": 64, "GROUPS": groups, "SEARCHES": searches, "TOKENS": 32, "ENTRIES": 1024,
            "DEPENDENT": True,
        }  # fmt: skip
        signature = {
            name: "constexpr"
            if name in constants
            else "i32"
            if name in NUMBERS
            else "*i32"
            if name in INT32
            else "*i64"
            for name in _lookup_kernel.arg_names
        }
        source = ASTSource(fn=_lookup_kernel, signature=signature, constexprs=constants)
        triton.compile(source, target=HOPPER, options={"num_warps": 4})
    for rows, tiles in ((2, 64), (512, 16), (2048, 4)):
        constants = {"BLOCK_Q": 16, "ROWS": rows, "TILES": tiles, "DEPENDENT": True}
        signature = {"out": "*i32", "query_start": "*i32", "num_rows": "i32", "num_tiles": "i32"}
        signature |= dict.fromkeys(constants, "constexpr")
        source = ASTSource(fn=_prompt_tiles_kernel, signature=signature, constexprs=constants)
        triton.compile(source, target=HOPPER, options={"num_warps": 4})


if __name__ == "__main__":
    main()
