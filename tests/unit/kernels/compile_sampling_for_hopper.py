"""Compiles the kernels of sampling for a Hopper GPU, which needs none: a script for a process of
its own, since the tests' process interprets kernels. With an argument, prints registers."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from quire.kernels.triton import (
    sampling,
    sampling_early,
    sampling_history,
    sampling_logprobs,
)

HOPPER = GPUTarget("cuda", 90, 32)
TYPES = {
    "*i64": "out rows lengths targets integers part_masses part_totals ends out_ids".split(),
    "*fp64": ["reals"],
    "*fp32": "part_largest brackets collected group_largest out_logprobs".split(),
    "*i32": (
        "seen counts counters part_best part_firsts part_numbers part_above best_groups out_ranks "
        "token_ids early_ids"
    ).split(),
    "*bf16": ["logits"],
    "i32": ["stride", "width"],
}
TYPE_OF = {name: kind for kind, names in TYPES.items() for name in names}
VOCAB = {"SIZE": 151936, "CHUNKS": 38, "PADDED": 64}
SIZES = {
    "BLOCK": sampling.Sizes().block,
    "SAMPLE": sampling.Sizes().sample,
    "CAPACITY": sampling.Sizes().capacity,
}
GROUPS = {"GROUPS": 2374, "PADDED_GROUPS": 4096, "BEST_GROUPS": 20, "GROUP": 64}
NUMBER = {"NUMBER": 20, "PADDED_NUMBER": 32}


def compile_kernel(kernel: Any, warps: int, **constants: Any) -> None:
    """A kernel must keep all its values in registers, and read logits 16 bytes at a time."""
    constants = {name: constants[name] for name in kernel.arg_names if name in constants}
    signature = {
        name: "constexpr" if name in constants else TYPE_OF[name] for name in kernel.arg_names
    }
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(kernel.arg_names)
        if signature[name].startswith("*") or name == "stride"
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": warps, "enable_fp_fusion": False}
    compiled = triton.compile(source, target=HOPPER, options=options)
    if kernel in (sampling._parts_kernel, sampling._narrow_kernel, sampling_logprobs._parts_kernel):
        assert "ld.global.v4" in str(compiled.asm["ptx"]), f"{kernel} reads logits piecemeal"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        used = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    if sys.argv[1:]:
        print(kernel.__name__, re.findall(r"REG:\d+ STACK:\d+", used))
    else:
        assert re.search(r"STACK:0 .*LOCAL:0", used), f"{kernel} {constants} spills: {used}"


def main() -> None:
    for penalised in (False, True):
        shape = {**VOCAB, **SIZES, "PENALISED": penalised}
        compile_kernel(sampling._parts_kernel, 8, **shape)
        compile_kernel(sampling._bracket_kernel, 16, **shape)
        compile_kernel(sampling._narrow_kernel, 8, **shape)
        compile_kernel(sampling._finish_kernel, 16, **shape)
        shape = {**VOCAB, **GROUPS, **NUMBER, "PENALISED": penalised, "ALL_RAW": not penalised}
        compile_kernel(sampling_logprobs._parts_kernel, 8, BLOCK=sampling_logprobs._BLOCK, **shape)
        compile_kernel(sampling_logprobs._finish_kernel, 8, **shape)
        tokens = {**VOCAB, "BLOCK": 1024, "PROGRAMS": 8, "CLEARS": penalised}
        compile_kernel(sampling_history._count_kernel, 4, **tokens)
    compile_kernel(sampling_history._penalise_kernel, 4, BLOCK=1024, **VOCAB)
    compile_kernel(sampling_early._forbid_early, 1, COUNT=16)


if __name__ == "__main__":
    main()
